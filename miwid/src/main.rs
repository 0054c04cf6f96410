//! The daemon's program; under the name `miwid-launch` it is the stub that becomes an app.

fn main() {
    if std::env::args_os().next().is_some_and(|name| name == miwid::app::stub::NAME) {
        miwid::app::stub::main();
    }
}
