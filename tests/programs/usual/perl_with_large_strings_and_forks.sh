# SPDX-License-Identifier: GPL-2.0
# Strings that grow, hashes, sorting, children by fork that read what their parent made.
exec perl -e '
	use strict; use warnings;
	$| = 1;
	my %seen; my $text = "";
	for my $number (1 .. 200000) { $text .= "word" . ($number * 7919 % 100003) . " "; }
	$seen{$_}++ for split / /, $text;
	my @sorted = sort { $seen{$b} <=> $seen{$a} || $a cmp $b } keys %seen;
	print length($text), " ", scalar(@sorted), " $sorted[0] $sorted[-1]\n";
	for my $child (1 .. 3) {
		my $pid = fork() // die;
		if (!$pid) {
			substr($text, 0, 4) = "CHLD";
			print length($text), " ", substr($text, 0, 9), " ", unpack("%32C*", $text), "\n";
			exit $child;
		}
		waitpid($pid, 0);
		print "child ", $? >> 8, " ", substr($text, 0, 9), "\n";
	}
	$text = reverse $text; $text =~ s/drow/x/g;
	print length($text), "\n";
'
