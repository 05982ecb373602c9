# SPDX-License-Identifier: GPL-2.0
# Buffers that are compressed, handed to threads and to a child process, and collected.
cat >program.js <<'JS'
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const { execFileSync } = require('child_process');
const crypto = require('crypto');
const zlib = require('zlib');

const hash = (data) => crypto.createHash('sha256').update(data).digest('hex').slice(0, 16);
const make = (seed, size) => {
	const buffer = Buffer.alloc(size);
	for (let i = 0; i < size; i++) buffer[i] = (i * seed + (i >> 8)) & 255;
	return buffer;
};

if (process.argv[2] === 'child') {
	const chunks = [];
	process.stdin.on('data', (chunk) => chunks.push(chunk));
	process.stdin.on('end', () => console.log(hash(Buffer.concat(chunks))));
} else if (isMainThread) {
	const sums = [];
	const work = (seed) => new Promise((resolve, reject) => {
		const worker = new Worker(__filename, { workerData: { seed } });
		worker.on('message', ({ buffer, text }) => sums.push([seed, buffer.byteLength, text]));
		worker.on('error', reject);
		worker.on('exit', resolve);
	});
	Promise.all([1, 2, 3].map(work)).then(() => {
		for (const sum of sums.sort()) console.log(...sum);
		const large = make(5, 3000000);
		const packed = zlib.gzipSync(large);
		console.log(packed.length, zlib.gunzipSync(packed).equals(large));
		console.log(execFileSync(process.execPath, [__filename, 'child'], { input: large }).toString().trim());
		let kept = [];
		for (let round = 0; round < 200; round++) {
			kept.push(Buffer.alloc(100000 + round * 1000, round));
			if (kept.length > 20) kept = kept.slice(10);
		}
		console.log(kept.length, hash(Buffer.concat(kept)));
	});
} else {
	const buffer = make(workerData.seed, 500000);
	const text = hash(buffer);
	const array = buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.length);
	parentPort.postMessage({ buffer: array, text }, [array]);
}
JS
exec node program.js
