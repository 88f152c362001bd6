//! Scripts of policies: who may allow them, and what the sandbox keeps them from. The sandbox is a real one, made by the shipped
//! program, and needs root.
//!
//! | threat | held by |
//! |---|---|
//! | a list that the operator has not signed, or that was changed | `a_list_counts_with_its_signature_alone` |
//! | a list that others may write | `a_list_that_others_may_write_counts_for_nothing` |
//! | a script that is on no list | `a_script_that_is_not_on_the_list_is_refused_by_name` |
//! | a script that writes, speaks, or looks at keys | `a_script_reads_everything_and_changes_nothing` |
//! | a script that does not end, or starts others that do not | `a_script_that_does_not_end_is_ended_with_all_that_it_started` |
//! | a script that takes processes, memory, room, or says too much | `a_script_that_takes_too_much_is_cut` |
//! | a script that leaves no process to another | `a_script_that_has_all_its_processes_takes_none_of_another` |

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pcs_agent::host::Cut;
use pcs_agent::script::{Ran, RunError, Scripts, run};
use proto::content::ContentHash;
use tempfile::TempDir;

const ALLOWED: &str = include_str!("scripts/allowed");
const SIGNATURE: &str = include_str!("scripts/allowed.sig");
const ELSEWHERE: &str = include_str!("scripts/elsewhere.sig");
const KEY: &str = include_str!("scripts/key.pub");
const OTHER: &str = include_str!("scripts/other.pub");
const SEVEN: &str = include_str!("scripts/seven.sh");
const UNKNOWN: &str = include_str!("scripts/unknown.sh");

/// A list with its signature, as an operator has them.
fn list(content: &str, signature: Option<&str>, signer: &str) -> (TempDir, Scripts) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("allowed");
    std::fs::write(&file, content).unwrap();
    mode(&file, 0o644);
    if let Some(signature) = signature {
        std::fs::write(directory.path().join("allowed.sig"), signature).unwrap();
        mode(&directory.path().join("allowed.sig"), 0o644);
    }
    let scripts = Scripts {
        runner: PathBuf::from(env!("CARGO_BIN_EXE_muster-pcs-agent")),
        ..Scripts::new(file, signer.to_owned(), directory.path().join("data"))
    };
    (directory, scripts)
}

fn mode(file: &std::path::Path, mode: u32) {
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn refusal(scripts: &Scripts) -> String {
    scripts.allow(&ContentHash::of(SEVEN.as_bytes())).unwrap_err()
}

#[test]
fn a_list_counts_with_its_signature_alone() {
    let (_directory, good) = list(ALLOWED, Some(SIGNATURE), KEY);
    assert_eq!(good.allow(&ContentHash::of(SEVEN.as_bytes())), Ok(()));
    let changed = format!("{ALLOWED}{}  another\n", ContentHash::of(UNKNOWN.as_bytes()));
    for (content, signature, signer, words) in [
        (ALLOWED, None, KEY, "allowed.sig"),
        (ALLOWED, None, KEY, "ssh-keygen -Y sign -n muster-scripts"),
        (ALLOWED, Some(SIGNATURE), OTHER, "not by the key in `scripts-signer`"),
        (ALLOWED, Some(ELSEWHERE), KEY, "for `file`, not for `muster-scripts`"),
        (ALLOWED, Some("junk"), KEY, "not one of `ssh-keygen -Y sign`"),
        (changed.as_str(), Some(SIGNATURE), KEY, "changed"),
        ("", Some(SIGNATURE), KEY, "changed"),
    ] {
        let (directory, scripts) = list(content, signature, signer);
        let refusal = refusal(&scripts);
        assert!(refusal.contains(words), "{refusal}");
        assert!(refusal.contains(&*directory.path().to_string_lossy()), "{refusal}");
    }
}

#[test]
fn a_list_that_others_may_write_counts_for_nothing() {
    let (directory, scripts) = list(ALLOWED, Some(SIGNATURE), KEY);
    let (file, signature) = (directory.path().join("allowed"), directory.path().join("allowed.sig"));
    for (path, bits) in [(&file, 0o664), (&file, 0o646), (&signature, 0o622)] {
        mode(path, bits);
        let refusal = refusal(&scripts);
        assert!(refusal.contains("others may write it") && refusal.contains(&*path.to_string_lossy()), "{refusal}");
        mode(path, 0o644);
    }
    assert_eq!(scripts.allow(&ContentHash::of(SEVEN.as_bytes())), Ok(()));
    std::fs::rename(&file, directory.path().join("moved")).unwrap();
    assert!(refusal(&scripts).contains("No such file"));
    std::os::unix::fs::symlink(directory.path().join("moved"), &file).unwrap();
    assert!(refusal(&scripts).contains("a link"));
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(refusal(&scripts).contains("not a regular file"));
}

#[test]
fn a_script_that_is_not_on_the_list_is_refused_by_name() {
    let (_directory, scripts) = list(ALLOWED, Some(SIGNATURE), KEY);
    let hash = ContentHash::of(UNKNOWN.as_bytes());
    let refusal = scripts.allow(&hash).unwrap_err();
    assert!(refusal.contains(hash.as_str()) && refusal.contains("allowed"), "{refusal}");
}

/// Runs a script in the sandbox; nothing where no sandbox can be made here.
fn ran(script: &str, values: &[(&str, &str)]) -> Option<Result<Ran, RunError>> {
    ran_until(script, values, &mut || Ok(()))
}

fn ran_until(
    script: &str,
    values: &[(&str, &str)],
    breathe: &mut dyn FnMut() -> Result<(), Cut>,
) -> Option<Result<Ran, RunError>> {
    let (directory, scripts) = list(ALLOWED, Some(SIGNATURE), KEY);
    std::fs::create_dir(directory.path().join("data")).unwrap();
    let values: BTreeMap<String, String> =
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let ran = run(&scripts, script, &values, breathe);
    if let Err(RunError::NoSandbox(why)) = &ran {
        assert!(std::env::var_os("MUSTER_REQUIRE_MOUNT").is_none(), "no sandbox can be made: {why}");
        println!("SKIPPED: a sandbox needs root ({why})");
        return None;
    }
    Some(ran)
}

#[test]
fn an_exit_code_and_what_was_written_come_back() {
    let Some(passed) = ran(SEVEN, &[("XCCDF_VALUE_wanted", "7"), ("XCCDF_TYPE_wanted", "NUMBER")]) else { return };
    let passed = passed.unwrap();
    assert_eq!((passed.code, passed.stdout.text.as_str()), (101, "the benchmark wants 7, a NUMBER <&>\n"));
    let failed = ran(SEVEN, &[("XCCDF_VALUE_wanted", "8"), ("LD_PRELOAD", "/evil.so")]).unwrap().unwrap();
    assert_eq!((failed.code, failed.stderr.text.as_str()), (102, ""));
    for code in [0, 1, 109, 255] {
        let script = format!("#!/bin/sh\nenv\necho wrong >&2\nexit {code}\n");
        let ended = ran(&script, &[("PATH", "/evil"), ("XCCDF_RESULT_PASS", "102")]).unwrap().unwrap();
        assert_eq!((ended.code, ended.stderr.text.as_str()), (code, "wrong\n"));
        assert!(!ended.stdout.text.contains("evil") && ended.stdout.text.contains("XCCDF_RESULT_PASS=101"));
    }
    assert_eq!(ran("#!/bin/sh\nkill -KILL $$\n", &[]).unwrap().unwrap().code, -9);
    assert!(matches!(ran("exit 101\n", &[]).unwrap(), Err(RunError::Broken(why)) if why.contains("#!")));
    assert!(matches!(ran("#!/no/such\n", &[]).unwrap(), Err(RunError::Broken(why)) if why.contains("interpreter")));
    assert!(matches!(ran(SEVEN, &[("XCCDF_VALUE_a=b", "1")]).unwrap(), Err(RunError::Broken(_))));
}

/// Says `NAME` for each thing that it could do and should not.
const REACH: &str = r#"#!/bin/sh
for place in /etc /usr /var /home /root /dev /proc/sys/kernel /opt /srv DATA/..; do
    ( : >"$place/muster-was-here" ) 2>/dev/null && echo "wrote $place"
done
for file in /etc/passwd /etc/shadow /etc/hosts; do ( : >>"$file" ) 2>/dev/null && echo "appended $file"; done
( echo 1 >/proc/sys/vm/drop_caches ) 2>/dev/null && echo "sysctl"
mount -o remount,rw / 2>/dev/null && echo "remounted"
kill -0 HOST 2>/dev/null && echo "signalled"
[ -e DATA/key ] && echo "keys"
[ -n "$(ls -A /run 2>/dev/null)" ] && echo "sockets"
[ "$(id -u)" = 0 ] && echo "root"
grep -q '^NoNewPrivs:.1' /proc/self/status || echo "privileges"
grep -q '^CapBnd:.0000000000000004' /proc/self/status || echo "capabilities"
( : >/dev/tcp/127.0.0.1/PORT ) 2>/dev/null && echo "network"
grep -q 'lo:' /proc/net/dev && [ "$(grep -c : /proc/net/dev)" = 1 ] || echo "interfaces"
head -c 1 /etc/shadow >/dev/null || echo "cannot read"
echo mine >/tmp/mine && [ "$(cat /tmp/mine)" = mine ] || echo "no room of its own"
exit 101
"#;

#[test]
fn a_script_reads_everything_and_changes_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir_in("/var").or_else(|_| tempfile::tempdir()).unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("key"), "secret").unwrap();
    let script = REACH
        .replace("#!/bin/sh", "#!/bin/bash")
        .replace("DATA", &data.to_string_lossy())
        .replace("HOST", &std::process::id().to_string())
        .replace("PORT", &listener.local_addr().unwrap().port().to_string());
    let (_list, scripts) = list(ALLOWED, Some(SIGNATURE), KEY);
    let ran = run(&Scripts { hidden: data, ..scripts }, &script, &BTreeMap::new(), &mut || Ok(()));
    if let Err(RunError::NoSandbox(why)) = &ran {
        assert!(std::env::var_os("MUSTER_REQUIRE_MOUNT").is_none(), "no sandbox can be made: {why}");
        println!("SKIPPED: a sandbox needs root ({why})");
        return;
    }
    let ran = ran.unwrap();
    assert_eq!((ran.code, ran.stdout.text.as_str()), (101, ""), "{}", ran.stderr.text);
    assert!(!PathBuf::from("/tmp/mine").exists());
    // Outside of a sandbox the same script does find what it looks for.
    let harmless: Vec<&str> =
        script.lines().filter(|line| !line.contains("drop_caches") && !line.contains("remount")).collect();
    let outside = std::process::Command::new("/bin/bash").arg("-c").arg(harmless.join("\n")).output().unwrap();
    let found = String::from_utf8_lossy(&outside.stdout).into_owned();
    std::fs::remove_file("/tmp/mine").unwrap();
    for place in ["/etc", "/usr", "/var", "/home", "/root", "/dev", "/opt", "/srv"] {
        let _ = std::fs::remove_file(format!("{place}/muster-was-here"));
    }
    for word in ["wrote /etc", "appended /etc/hosts", "signalled", "keys", "root", "privileges", "network"] {
        assert!(found.contains(word), "{word}: {found}");
    }
}

/// A time to sleep that no other process has in its words.
fn own_seconds(part: u32) -> String {
    format!("{}.{part}", 100_000 + std::process::id())
}

/// How many processes of this machine have these in their words.
fn processes_with(seconds: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let words = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
    processes.map(words).filter(|words| String::from_utf8_lossy(words).contains(seconds)).count()
}

#[test]
fn a_script_that_does_not_end_is_ended_with_all_that_it_started() {
    static STEPS: AtomicU32 = AtomicU32::new(0);
    let seconds = own_seconds(25);
    let script =
        format!("#!/bin/sh\nsetsid sleep {seconds} &\nnohup sleep {seconds} >/dev/null 2>&1 &\nsleep {seconds}\n");
    let is_there = || processes_with(&seconds);
    let began = Instant::now();
    let mut seen = 0;
    let ended = ran_until(&script, &[], &mut || {
        STEPS.fetch_add(1, Ordering::Relaxed);
        seen = seen.max(is_there());
        if seen >= 3 || began.elapsed() > Duration::from_secs(20) { Err(Cut::Time(1)) } else { Ok(()) }
    });
    let Some(ended) = ended else { return };
    assert_eq!(ended, Err(RunError::Cut(Cut::Time(1))));
    assert_eq!(seen, 3, "all three ran");
    let patience = Instant::now();
    while is_there() > 0 {
        assert!(patience.elapsed() < Duration::from_secs(10), "{} are left", is_there());
        std::thread::sleep(Duration::from_millis(20));
    }
    // What is left behind by a script that ends goes with it.
    let left = ran(&format!("#!/bin/sh\nsleep {seconds} &\nexit 101\n"), &[]).unwrap().unwrap();
    assert_eq!(left.code, 101);
    assert_eq!(is_there(), 0);
}

#[test]
fn a_script_that_takes_too_much_is_cut() {
    let loud =
        "#!/bin/sh\nhead -c 100000000 /dev/zero | tr '\\0' x\nhead -c 20000 /dev/zero | tr '\\0' y >&2\nexit 101\n";
    let Some(loud) = ran(loud, &[]) else { return };
    let loud = loud.unwrap();
    assert_eq!((loud.code, loud.stdout.text.len(), loud.stdout.is_cut), (101, 16 * 1024, true));
    assert_eq!((loud.stderr.text.len(), loud.stderr.is_cut), (16 * 1024, true));

    let many = "#!/bin/sh\nfor n in $(seq 200); do sleep 30 & done 2>/tmp/said\nn=$(grep -c . /proc/self/status)\necho started\nexit 101\n";
    let many = ran(many, &[]).unwrap().unwrap();
    assert!(many.code != 101 || !many.stdout.text.contains("started"), "{many:?}");

    let room = "#!/bin/sh\nhead -c 2000000 /dev/zero >/tmp/large 2>/dev/null\n[ \"$(stat -c %s /tmp/large)\" -le 1048576 ] && exit 101\nexit 102\n";
    assert_eq!(ran(room, &[]).unwrap().unwrap().code, 101);

    let memory = "#!/bin/sh\nhead -c 1000000000 /dev/zero | tail -c 900000000 >/dev/null 2>&1\n[ $? = 0 ] && exit 102\nexit 101\n";
    assert_eq!(ran(memory, &[]).unwrap().unwrap().code, 101);
}

#[test]
fn a_script_that_has_all_its_processes_takes_none_of_another() {
    let seconds = own_seconds(75);
    // Nothing can be started any more, and the script stops where it is.
    let greedy = format!("#!/bin/sh\n( for n in $(seq 200); do sleep {seconds} & done )\nkill -STOP $$\n");
    let began = Instant::now();
    let (mut most, mut again) = (0, 0);
    let mut other = None;
    let ended = ran_until(&greedy, &[], &mut || {
        let seen = processes_with(&seconds);
        // As many as a moment before, again and again: there are no more to come.
        again = if seen == most { again + 1 } else { 0 };
        if seen > 40 && again >= 5 {
            other = ran("#!/bin/sh\n( exit 101 )\nexit $?\n", &[]);
        }
        most = most.max(seen);
        if other.is_some() || began.elapsed() > Duration::from_secs(20) { Err(Cut::Time(1)) } else { Ok(()) }
    });
    let Some(ended) = ended else { return };
    assert_eq!(ended, Err(RunError::Cut(Cut::Time(1))));
    assert!((41..64).contains(&most), "{most} of one script");
    let other = other.expect("the first has all its processes").unwrap();
    assert_eq!((other.code, other.stderr.text.as_str()), (101, ""));
}
