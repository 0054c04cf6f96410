//! Configurations, as written by people in a hurry: a load ends, every problem has its place in the text, and what was
//! understood does not depend on how often it is read.
//!
//! Keys that read other files are left out: a fuzzer would find `/dev/zero`.
#![no_main]

use std::path::Path;

use config::{Capabilities, Loaded, Problem, Severity, diff, load_text, show};
use libfuzzer_sys::{Corpus, fuzz_target};

const NAME: &str = "/etc/miwid/m.toml";

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = str::from_utf8(data) else { return Corpus::Reject };
    // A key may be spelled with escapes, too.
    if ["include", "_file", "\\u", "\\U", "\\x"].iter().any(|it| text.contains(it)) {
        return Corpus::Reject;
    }
    match load(text) {
        Ok(loaded) => {
            assert!(loaded.warnings.iter().all(|it| it.severity == Severity::Warning));
            judge(&loaded.warnings, text);
            is_the_same_again(&loaded, text);
        }
        Err(problems) => {
            assert!(problems.iter().any(|it| it.severity == Severity::Error), "refused without a reason");
            judge(&problems, text);
            assert_eq!(load(text).err().as_ref(), Some(&problems));
        }
    }
    Corpus::Keep
});

fn load(text: &str) -> Result<Loaded, Vec<Problem>> {
    load_text(Path::new(NAME), text, &[], &Capabilities::default())
}

fn judge(problems: &[Problem], text: &str) {
    // The end of a file is a place, too, and a final line end begins no line that `lines` counts.
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in problems {
        let line = usize::try_from(problem.line).ok().and_then(|it| it.checked_sub(1)).and_then(|it| lines.get(it));
        let line = line.unwrap_or_else(|| panic!("{problem:?} is not in the file"));
        assert!((1..=line.chars().count() + 1).contains(&(problem.column as usize)), "{problem:?}");
        assert_eq!(problem.file, Path::new(NAME), "{problem:?}");
        assert!(!problem.message.is_empty(), "{problem:?}");
        for color in [true, false] {
            assert!(problem.render(Some(text), color).contains(&problem.message));
        }
    }
}

fn is_the_same_again(loaded: &Loaded, text: &str) {
    // Behind a comment of its own line: where a thing stands is no part of what it means.
    let rest = text.trim_start_matches('\u{feff}');
    let (mark, text) = text.split_at(text.len() - rest.len());
    let moved = load(&format!("{mark}# moved\n{text}\n# end")).expect("a comment breaks nothing");
    assert_eq!(diff(&loaded.config, &moved.config), []);
    assert_eq!(show(&loaded.config), show(&moved.config));
    assert_eq!(loaded.warnings.len(), moved.warnings.len());
    for (here, there) in loaded.warnings.iter().zip(&moved.warnings) {
        assert_eq!((here.line + 1, &here.message), (there.line, &there.message));
    }
}
