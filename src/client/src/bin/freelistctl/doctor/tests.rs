// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the verdicts of `freelistctl doctor`.

use std::path::PathBuf;

use freelist::Info;

use super::super::facts::Apt;
use super::*;

/// Returns the facts of a machine without faults.
fn well() -> Facts {
    let info = Info {
        abi: ABI,
        page_size: 4096,
        min_shift: 5,
        max_shift: 35,
        arena_bytes: 64 << 30,
        limit_bytes: 6 << 30,
        features: Features::all().bits(),
    };
    Facts {
        release: "7.3.4+deb13-amd64".to_owned(),
        arch: "x86_64",
        apt: Apt {
            archive: "http://mirror.example/debian".to_owned(),
            has_backports: false,
        },
        has_rust: Some(true),
        module: Module::Loaded("freelist (303104 bytes)".to_owned()),
        lockdown: Some("none".to_owned()),
        secure_boot: false,
        has_key: true,
        signatures_enforced: false,
        device: PathBuf::from("/dev/freelist"),
        node: Node::Device {
            mode: 0o660,
            gid: 990,
            number: (243, 0),
        },
        number: Some((243, 0)),
        opened: Ok(info),
        is_root: false,
        gid: Some(990),
        membership: Membership::Inside,
        debugfs: Debugfs::Readable,
        limit_bytes: Some(6 << 30),
        memory_bytes: 8 << 30,
        options: Vec::new(),
        cgroup_bytes: None,
        huge_bytes: Some(2 << 20),
        huge_disabled: false,
        huge_free: Some(100),
        library: Some(PathBuf::from("/usr/lib/libfreelist_malloc.so")),
        tracepoints: Some(7),
    }
}

/// Returns the verdict of the check `name`, and its text with the command.
fn of(facts: &Facts, name: &str) -> (Verdict, String) {
    let checks = all(facts);
    let check = checks.iter().find(|check| check.name == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {checks:?}"));
    assert_eq!(
        check.verdict == Verdict::Ok,
        check.mend.is_none(),
        "{check:?}"
    );
    let mend = check.mend.as_deref().unwrap_or_default();
    (check.verdict, format!("{}\n{mend}", check.text))
}

#[test]
fn a_machine_without_faults_passes_every_check() {
    for check in all(&well()) {
        assert_eq!(check.verdict, Verdict::Ok, "{check:?}");
    }
}

#[test]
fn the_series_are_those_that_are_tested() {
    // The only place that has them; a packaged crate does not include it.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../qemu/versions");
    let Ok(text) = std::fs::read_to_string(path) else {
        return;
    };
    let named = text.lines().filter_map(|line| line.strip_prefix("series "));
    let mut named: Vec<_> = named.filter_map(series).collect();
    named.sort_unstable();
    assert_eq!(named, SERIES);
}

#[test]
fn another_kernel_is_wrong_and_debians_of_backports_mends_it() {
    for (release, package) in [
        ("6.12.48+deb13-amd64", "linux-image-amd64 "),
        ("6.12.48+deb13-cloud-amd64", "linux-image-cloud-amd64 "),
        ("7.4.0", "linux-image-amd64 "),
        ("7.1.9", "linux-image-amd64 "),
        ("", "linux-image-amd64 "),
    ] {
        let facts = Facts {
            release: release.to_owned(),
            ..well()
        };
        let (verdict, text) = of(&facts, "kernel");
        assert_eq!(verdict, Verdict::Wrong, "{text}");
        assert!(text.contains("7.2 and 7.3 are"), "{text}");
        assert!(
            text.contains("trixie-backports") && text.contains(package),
            "{text}"
        );
        assert!(!all(&facts).iter().any(|check| check.name == "huge pages"));
    }
    let old = Facts {
        release: "6.12.48+deb13-amd64".to_owned(),
        ..well()
    };
    assert!(of(&old, "kernel").1.contains("Rust"));
    let facts = Facts {
        has_rust: Some(false),
        ..well()
    };
    assert_eq!(of(&facts, "kernel").0, Verdict::Wrong);
    let facts = Facts {
        release: "7.2.12+deb13-amd64".to_owned(),
        has_rust: None,
        ..well()
    };
    assert_eq!(of(&facts, "kernel").0, Verdict::Ok);
}

#[test]
fn the_kernel_comes_from_the_archive_that_the_machine_has() {
    let of = |has_backports| {
        let apt = Apt {
            has_backports,
            ..well().apt
        };
        let release = "7.1.9".to_owned();
        of(
            &Facts {
                release,
                apt,
                ..well()
            },
            "kernel",
        )
        .1
    };
    let text = of(false);
    assert!(
        text.contains("\necho 'deb http://mirror.example/debian trixie-backports main'"),
        "{text}"
    );
    let text = of(true);
    assert!(
        text.contains("\nsudo apt install -t trixie-backports"),
        "{text}"
    );
}

#[test]
fn without_the_module_only_its_prerequisites_are_checked() {
    let facts = Facts {
        module: Module::Absent,
        ..well()
    };
    let (verdict, text) = of(&facts, "module");
    assert_eq!(verdict, Verdict::Wrong);
    assert!(
        text.ends_with("sudo make install && sudo modprobe freelist"),
        "{text}"
    );
    let names: Vec<_> = all(&facts).iter().map(|check| check.name).collect();
    assert_eq!(
        names,
        ["kernel", "module", "signature", "huge pages", "library"]
    );
    let path = PathBuf::from("/lib/modules/7.3.4/updates/freelist.ko");
    let module = Module::Installed {
        path,
        signed: Some(true),
    };
    let facts = Facts { module, ..well() };
    assert!(of(&facts, "module").1.ends_with("\nsudo modprobe freelist"));
}

#[test]
fn a_kernel_that_requires_signatures_is_reported() {
    let installed = |signed| Module::Installed {
        path: PathBuf::from("/x/freelist.ko"),
        signed,
    };
    let facts = Facts {
        module: installed(Some(false)),
        ..well()
    };
    assert_eq!(of(&facts, "signature").0, Verdict::Ok);
    let locked = Facts {
        lockdown: Some("integrity".to_owned()),
        ..facts.clone()
    };
    let (verdict, text) = of(&locked, "signature");
    assert_eq!(verdict, Verdict::Wrong);
    assert!(
        text.contains("locked down") && text.contains("mokutil --import"),
        "{text}"
    );
    let keyless = Facts {
        has_key: false,
        ..locked.clone()
    };
    assert!(!text.contains("generate_mok"), "{text}");
    assert!(of(&keyless, "signature")
        .1
        .contains("dkms generate_mok && sudo make install"));
    let secure = Facts {
        secure_boot: true,
        ..facts.clone()
    };
    assert!(of(&secure, "signature")
        .1
        .starts_with("Secure Boot is on, and the module has no signature"));
    let enforced = Facts {
        signatures_enforced: true,
        module: installed(Some(true)),
        ..facts
    };
    assert_eq!(of(&enforced, "signature").0, Verdict::Warning);
    assert!(!all(&Facts {
        secure_boot: true,
        ..well()
    })
    .iter()
    .any(|check| check.name == "signature"));
}

#[test]
fn a_missing_or_foreign_device_is_made() {
    for node in [
        Node::Absent,
        Node::Other,
        Node::Device {
            mode: 0o660,
            gid: 0,
            number: (1, 3),
        },
    ] {
        let (verdict, text) = of(&Facts { node, ..well() }, "device");
        assert_eq!(verdict, Verdict::Wrong);
        assert!(
            text.ends_with("sudo mknod -m 0660 /dev/freelist c 243 0"),
            "{text}"
        );
    }
    let node = Node::Device {
        mode: 0o666,
        gid: 990,
        number: (243, 0),
    };
    let (verdict, text) = of(&Facts { node, ..well() }, "device");
    assert_eq!(verdict, Verdict::Warning);
    assert!(text.ends_with("sudo chmod 0660 /dev/freelist"), "{text}");
}

#[test]
fn the_way_to_permission_depends_on_the_group() {
    let refused = |membership| Facts {
        opened: Err(Errno::EACCES),
        membership,
        ..well()
    };
    let none = Facts {
        gid: None,
        ..refused(Membership::NoGroup)
    };
    for (facts, command) in [
        (
            none,
            "sudo groupadd --system freelist && sudo chgrp freelist /dev/freelist",
        ),
        (
            refused(Membership::Outside),
            "sudo usermod -aG freelist \"$USER\" && exec newgrp freelist",
        ),
        (refused(Membership::AtNextLogin), "\nexec newgrp freelist"),
        (
            Facts {
                gid: Some(1),
                ..refused(Membership::Outside)
            },
            "sudo chgrp freelist /dev/freelist && sudo chmod 0660",
        ),
        (refused(Membership::Inside), "sudo dmesg"),
    ] {
        let (verdict, text) = of(&facts, "permission");
        assert_eq!(verdict, Verdict::Wrong);
        assert!(text.contains(command), "{text}");
    }
    let older = Info {
        abi: 1,
        ..well().opened.unwrap()
    };
    let (verdict, text) = of(
        &Facts {
            opened: Ok(older),
            ..well()
        },
        "permission",
    );
    assert_eq!(verdict, Verdict::Wrong);
    assert!(text.contains("the module's abi is 1"), "{text}");
}

#[test]
fn debugfs_that_is_closed_is_a_warning() {
    for (debugfs, command) in [
        (
            Debugfs::NotMounted,
            "sudo mount -t debugfs debugfs /sys/kernel/debug",
        ),
        (Debugfs::Unreadable(Errno::EACCES), "sudo freelistctl stat"),
        (Debugfs::Unreadable(Errno::EPERM), "locked down"),
    ] {
        let (verdict, text) = of(&Facts { debugfs, ..well() }, "debugfs");
        assert_eq!(verdict, Verdict::Warning);
        assert!(text.contains(command), "{text}");
    }
    let facts = Facts {
        debugfs: Debugfs::Unreadable(Errno::ENOENT),
        ..well()
    };
    assert_eq!(of(&facts, "debugfs").0, Verdict::Wrong);
}

#[test]
fn limits_that_do_not_fit_the_machine_are_a_warning() {
    let facts = Facts {
        limit_bytes: Some(16 << 20),
        ..well()
    };
    let (verdict, text) = of(&facts, "limits");
    assert_eq!(verdict, Verdict::Warning);
    assert!(text.contains("options freelist limit_mb=6553'"), "{text}");
    let facts = Facts {
        limit_bytes: Some(9 << 30),
        ..well()
    };
    assert_eq!(of(&facts, "limits").0, Verdict::Warning);
    let facts = Facts {
        options: vec!["limit_mb=512".to_owned()],
        cgroup_bytes: Some(1 << 30),
        ..well()
    };
    let (verdict, text) = of(&facts, "limits");
    assert_eq!(verdict, Verdict::Ok);
    assert!(
        text.contains("this cgroup 1024.00 MiB") && text.contains("limit_mb=512"),
        "{text}"
    );
}

#[test]
fn huge_pages_that_are_missing_are_a_warning() {
    for (facts, part) in [
        (
            Facts {
                huge_bytes: None,
                ..well()
            },
            "has none",
        ),
        (
            Facts {
                huge_free: Some(0),
                ..well()
            },
            "compact_memory",
        ),
        (
            Facts {
                huge_disabled: true,
                ..well()
            },
            "PR_SET_THP_DISABLE",
        ),
    ] {
        let (verdict, text) = of(&facts, "huge pages");
        assert_eq!(verdict, Verdict::Warning);
        assert!(text.contains(part), "{text}");
    }
}
