//! The parent of everything: it has the listening sockets, the pipes of the apps and the processes, and starts the engines, which do
//! all the rest. It is small on purpose, has one thread, reads no configuration (who its engines are is settled before) and knows no HTTP: what cannot break need
//! seldom be replaced, and then it becomes the new program itself. When an engine dies, the apps run on, connections wait in the kernel, and the next engine takes over.

mod children;
mod confines;
mod engine;
mod ladder;
mod manager;
mod parcel;
mod renewal;
mod run;
mod store;
mod succession;
mod trouble;
mod voice;

pub use renewal::resume;
pub use run::run;
