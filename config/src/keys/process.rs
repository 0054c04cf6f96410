//! `process` and the tables that stand beside it.

use super::{COUNT, DURATION, EXIT_CODE, Key, Kind, SIZE, STATUS, TEXTS, TIMEOUT, Table, key};

pub(crate) static PROCESS: Table =
    Table { doc: "The program that miwid runs for a site.", groups: &[PROGRAM, LIFE, BOUNDS] };

const ENV_VALUE: Kind = Kind::Either(&[
    Kind::Text,
    Kind::Integer { min: i64::MIN, max: i64::MAX },
    Kind::Number { min: f64::MIN, max: f64::MAX },
    Kind::Flag,
]);

static STREAM_DRAIN_KINDS: [Kind; 3] = [Kind::Choice(&["wait", "now"]), DURATION, Kind::Table(&STREAM_DRAIN)];

const PROGRAM: &[Key] = &[
    key("command", Kind::Text, "found by the app type", "The program."),
    key("args", TEXTS, "[]", "Its arguments."),
    key("shell", Kind::Flag, "false", "Whether `command` is a line for `/bin/sh`."),
    key("working_dir", Kind::Path, "the directory of the file", "Directory that it starts in."),
    key("env", Kind::Map(&ENV_VALUE), "", "Environment variables."),
    key("env_file", Kind::Path, "", "File of `NAME=value` lines, read at each start."),
    key("user", Kind::Text, "that of `[server]`", "Account that it runs as, when miwid is root."),
    key("group", Kind::Text, "the account's own", "Group that it runs as."),
    key("allow_root", Kind::Flag, "false", "Whether `user = \"root\"` is meant."),
    key("instances", Kind::Integer { min: 1, max: 1024 }, "1", "How many of it run."),
    key("listen", Kind::Choice(&["auto", "tcp", "unix"]), "auto", "What kind of address an instance is given."),
    key("depends_on", TEXTS, "[]", "Apps that have to be ready before."),
    key(
        "pre_deploy",
        Kind::Text,
        "",
        "Line for the shell, once before a deploy, in the new release and as the app's user.",
    ),
    key("watch", Kind::Flag, "false", "Whether changed files restart the app."),
    key("logs", Kind::Table(&LOGS), "", "Where its output goes."),
    key("probes", Kind::Table(&PROBES), "", "How to tell whether it is well."),
];

const LIFE: &[Key] = &[
    key(
        "auto_restart",
        Kind::Either(&[Kind::Flag, Kind::Choice(&["on-failure"])]),
        "true",
        "Whether it is started again when it ends.",
    ),
    key("success_codes", Kind::List(&EXIT_CODE), "[0]", "Exit codes that are no failure."),
    key("fatal_exit_codes", Kind::List(&EXIT_CODE), "[]", "Exit codes after which starting again is useless."),
    key("start_timeout", TIMEOUT, "60s, java and tomcat 120s, command 30s", "How long it may take to become ready."),
    key(
        "settle_time",
        DURATION,
        "1s, 10s for a deploy",
        "How long a new instance stays ready before the old one goes.",
    ),
    key("drain_timeout", DURATION, "30s", "How long requests may take to end before it is stopped."),
    key("stop_timeout", DURATION, "10s, tomcat 20s", "How long it may take to stop before it is killed."),
    key("stop_signal", Kind::Signal, "SIGTERM", "The signal that asks it to stop."),
    key(
        "kill_mode",
        Kind::Choice(&["mixed", "group", "process"]),
        "by the app type",
        "Who gets the stop signal and who is killed.",
    ),
    key(
        "restart_strategy",
        Kind::Choice(&["auto", "rolling", "hold", "recreate"]),
        "auto",
        "How a restart goes: `auto` is `hold` with a fixed `url`, else `rolling`.",
    ),
    key("hold", Kind::Table(&HOLD), "", "Requests that wait while nothing can answer."),
    key("on_failure", Kind::Choice(&["rollback", "halt"]), "rollback", "What a failed restart does."),
    key(
        "stream_drain",
        Kind::Either(&STREAM_DRAIN_KINDS),
        "5s",
        "When streams end at a restart: `wait` for them, `now`, or after a time.",
    ),
    key(
        "on_all_unready",
        Kind::Choice(&["serve", "refuse", "hold"]),
        "serve",
        "What requests get while every instance is unready.",
    ),
];

const BOUNDS: &[Key] = &[
    key("memory_limit", SIZE, "", "Memory of one instance."),
    key(
        "memory_restart",
        Kind::Text,
        "",
        "Memory at which an instance is replaced: a size or a percentage of the limit.",
    ),
    key("cpu_limit", Kind::Number { min: 0.01, max: 1024.0 }, "", "CPUs of one instance."),
    key("pids_limit", COUNT, "", "Processes and threads of one instance."),
    key("max_requests", COUNT, "", "Requests after which an instance is replaced."),
    key("max_lifetime", TIMEOUT, "", "Age at which an instance is replaced."),
    key("restart_schedule", Kind::Text, "", "When to restart: a cron line in local time, or `@daily`."),
    key("idle_timeout", TIMEOUT, "", "Quiet time after which the app sleeps."),
    key("wake_on", Kind::Table(&WAKE_ON), "", "Which requests wake an app that sleeps; others get a 503."),
];

static HOLD: Table = Table {
    doc: "Requests that wait while nothing can answer.",
    groups: &[&[
        key("max_requests", Kind::Integer { min: 0, max: 1_000_000 }, "512", "How many wait."),
        key("timeout", DURATION, "30s", "How long one waits."),
        key("release_concurrency", COUNT, "64", "How many go on at once afterwards."),
        key("on_start", Kind::Flag, "true", "Whether requests wait for the first start too."),
    ]],
};

static WAKE_ON: Table = Table {
    doc: "Requests that wake an app that sleeps. Others get a 503 with `miwi-reason: app-idle`.",
    groups: &[&[
        key("methods", TEXTS, "all", "Their methods."),
        key(
            "paths",
            Kind::List(&Kind::HttpPath),
            "all",
            "Their paths, whole; `/shop/*` is all that begin with `/shop/`.",
        ),
    ]],
};

static LOGS: Table = Table {
    doc: "Where the output of an app goes.",
    groups: &[&[
        key("path", Kind::Path, "logs/NAME.log beside the access log", "The file."),
        key("format", Kind::Choice(&["text", "json"]), "text", "How lines look."),
        key("max_size", SIZE, "as in `[logging.rotation]`", "Size at which the file is set aside."),
        key(
            "max_backups",
            Kind::Integer { min: 0, max: 100_000 },
            "as in `[logging.rotation]`",
            "Files that are kept.",
        ),
        key("rate_limit", SIZE, "20MB", "Bytes per second that are kept."),
    ]],
};

static STREAM_DRAIN: Table = Table {
    doc: "When streams end at a restart.",
    groups: &[&[key("close_after", DURATION, "5s", "How long they may go on.")]],
};

static PROBES: Table = Table {
    doc: "How to tell whether an app is well.",
    groups: &[&[
        key("startup", Kind::Table(&PROBE), "", "Has it started?"),
        key("readiness", Kind::Table(&PROBE), "", "Can it take requests?"),
        key("liveness", Kind::Table(&PROBE), "", "Is it alive, or to be replaced?"),
    ]],
};

static PROBE: Table = Table {
    doc: "One probe: exactly one of `http`, `tcp`, `exec`, `log`, `notify`.",
    groups: &[&[
        key("http", Kind::HttpPath, "", "Path to ask for."),
        key("expect", Kind::List(&STATUS), "200 to 299", "Status codes that mean well (with `http`)."),
        key("tcp", Kind::Flag, "", "Connecting is enough."),
        key("exec", TEXTS, "", "Command that exits with 0."),
        key("log", Kind::Text, "", "Text in a line of output."),
        key("notify", Kind::Flag, "", "The app says so itself (`READY=1`)."),
        key("interval", TIMEOUT, "10s", "Time between two probes."),
        key("timeout", TIMEOUT, "5s", "How long one may take."),
        key("failures", Kind::Integer { min: 1, max: 1000 }, "3", "Failures in a row that count."),
        key("successes", Kind::Integer { min: 1, max: 1000 }, "1", "Successes in a row that count."),
    ]],
};

pub(crate) static PYTHON: Table = Table {
    doc: "How a Python app is started.",
    groups: &[&[
        key("app", Kind::Text, "found in the working directory", "The application: `shop.wsgi:application`."),
        key("interface", Kind::Choice(&["auto", "wsgi", "asgi"]), "auto", "How the server calls it."),
        key("server", Kind::Text, "one that is installed", "The server program."),
        key("venv", Kind::Path, ".venv or venv in the working directory", "The virtual environment."),
        key("workers", Kind::Integer { min: 1, max: 1024 }, "", "Worker processes of one instance."),
        key("threads", Kind::Integer { min: 1, max: 4096 }, "", "Threads of one worker."),
    ]],
};

pub(crate) static NODEJS: Table = Table {
    doc: "How a Node.js app is started.",
    groups: &[&[
        key("script", Kind::Text, "start, or the package's main file", "Script of `package.json`, or a file."),
        key(
            "package_manager",
            Kind::Choice(&["npm", "pnpm", "yarn", "bun"]),
            "by the lock file",
            "Who runs the script.",
        ),
    ]],
};

pub(crate) static TOMCAT: Table = Table {
    doc: "How a web archive is started.",
    groups: &[&[
        key("war", Kind::Path, "", "The web archive; `miwictl app deploy` brings others."),
        key("context", Kind::HttpPath, "/", "Its context path."),
        key("home", Kind::Path, "$CATALINA_HOME, else where packages put it", "Where Tomcat is installed."),
        key(
            "base_template",
            Kind::Path,
            "",
            "Directory that each instance's base is copied from; `{socket}`, `{host}`, `{port}` in its server.xml are filled in.",
        ),
    ]],
};

pub(crate) static JVM: Table = Table {
    doc: "The Java machine of an app.",
    groups: &[&[
        key("java_home", Kind::Path, "$JAVA_HOME, else the `java` in PATH", "Where Java is installed."),
        key("heap", Kind::Size { min: 1 << 20 }, "by `memory_limit`, at most 78 % of it", "Size of the heap."),
        key("gc", Kind::Text, "by size", "The collector: `serial`, `parallel`, `g1`, `zgc` or `shenandoah`."),
        key("options", TEXTS, "[]", "Other options of the machine; they win."),
        key("profile", Kind::Text, "", "`fast-start` compiles less and starts sooner."),
    ]],
};
