//! The real stub: the daemon's program under another name becomes the app.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use miwid::app::{
    launcher::{InProcess, Launched, Launcher},
    spec::Launch,
};
use tokio::io::AsyncReadExt;

fn stub() -> InProcess {
    InProcess { program: env!("CARGO_BIN_EXE_miwid").into() }
}

fn launch(argv: &[&str]) -> Launch {
    Launch {
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: vec![("PATH".into(), config::Secret::new("/usr/bin:/bin")), ("ONLY".into(), config::Secret::new("this"))],
        working_dir: "/".into(),
        user: None,
        base: None,
        group: None,
    }
}

async fn output(mut launched: Launched) -> (String, Option<i32>) {
    let mut text = String::new();
    let patience = Duration::from_secs(30);
    tokio::time::timeout(patience, launched.stdout.read_to_string(&mut text)).await.unwrap().unwrap();
    let exit = tokio::time::timeout(patience, launched.exit).await.unwrap();
    (text, exit.code)
}

#[tokio::test]
async fn an_app_gets_exactly_its_environment_and_a_session() {
    let script = "env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= -e ^OLDPWD= | sort; umask; ulimit -c; pwd; \
                  cut -d' ' -f6 /proc/$$/stat; echo $$; exit 42";
    let launched = stub().launch(launch(&["/bin/sh", "-c", script])).await.unwrap();
    let pid = launched.pid;
    let (text, code) = output(launched).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..5], ["ONLY=this", "PATH=/usr/bin:/bin", "0007", "0", "/"], "{text}");
    assert_eq!(lines[5..], [pid.to_string(), pid.to_string()], "{text}");
    assert_eq!(code, Some(42));
}

// The next two look at themselves, without a shell: while a shell forks, it has more files open and blocks all signals.

#[tokio::test]
async fn an_app_gets_three_open_files_of_which_the_first_is_empty() {
    let launched = stub().launch(launch(&["/bin/ls", "-l", "/proc/self/fd"])).await.unwrap();
    let own_directory = format!("/proc/{}/fd", launched.pid);
    let (text, code) = output(launched).await;
    let files: Vec<(&str, &str)> =
        text.lines().filter_map(|it| it.rsplit_once(" -> ")).map(|(it, to)| (&it[it.len() - 1..], to)).collect();
    let numbers: Vec<&str> = files.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, ["0", "1", "2", "3"], "{text}");
    assert_eq!((files[0].1, files[3].1), ("/dev/null", own_directory.as_str()), "the last is what it lists: {text}");
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn an_app_gets_its_signals_unblocked_and_sigpipe_as_it_comes() {
    let (text, code) = output(stub().launch(launch(&["/bin/cat", "/proc/self/status"])).await.unwrap()).await;
    let mask = |name: &str| {
        let line = text.lines().find(|it| it.starts_with(name)).expect("the kernel says it");
        u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
    };
    let sigpipe = 1 << 12;
    assert_eq!((mask("SigBlk:"), mask("SigIgn:") & sigpipe), (0, 0), "{text}");
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn a_failed_step_is_named_with_its_errno() {
    let error = stub().launch(launch(&["/does/not/exist"])).await.err().unwrap();
    assert_eq!((error.step.as_str(), error.errno), ("exec", 2));
    let mut elsewhere = launch(&["/bin/true"]);
    elsewhere.working_dir = "/does/not/exist".into();
    let error = stub().launch(elsewhere).await.err().unwrap();
    assert_eq!((error.step.as_str(), error.errno), ("chdir", 2));
}
