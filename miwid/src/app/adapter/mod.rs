//! From a backend and what lies on the disk to a command line. An adapter never runs the app's code to find out:
//! what it can't tell becomes a finding with the candidates, not a guess.

mod command;
mod find;
mod jar;
mod jvm;
mod node;
mod python;
mod recipe;
mod tomcat;
mod war;

use find::{executable, interpreter, resolve, tcp_unless_unix};
pub(super) use recipe::{Obstacle, Recipe, recipe};
