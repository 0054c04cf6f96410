//! `Range` against a representation of any length: what is sent lies within it, no byte twice, and is what was asked for.
//! The first eight bytes of an input are the length, the rest is the header's value.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use miwid::files::fuzzing::{Slice, Wanted, wanted};

/// Gaps between ranges up to this are sent along.
const GAP_BYTES: u64 = 80;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((length, value)) = data.split_first_chunk() else { return Corpus::Reject };
    let length = u64::from_le_bytes(*length);
    for length in [length, length % 1000] {
        judge(value, length);
    }
    Corpus::Keep
});

fn judge(value: &[u8], length: u64) {
    let found = wanted(value, length);
    let slices = match &found {
        Wanted::Whole | Wanted::Unsatisfiable => return,
        Wanted::One(slice) => vec![*slice],
        Wanted::Several(slices) => slices.clone(),
    };
    assert!(slices.len() == 1 || matches!(found, Wanted::Several(_)));
    within(&slices, length);
    let asked = asked(value, length);
    answers(&slices, &asked);
    assert_eq!(wanted(written(&slices).as_bytes(), length), found, "asked for again");
}

fn last(slice: &Slice) -> u64 {
    slice.offset + (slice.length - 1)
}

fn within(slices: &[Slice], length: u64) {
    let mut sorted = slices.to_vec();
    sorted.sort_by_key(|it| it.offset);
    for slice in &sorted {
        assert!(slice.length > 0 && slice.offset < length && slice.length <= length - slice.offset, "{slice:?}");
    }
    for pair in sorted.windows(2) {
        assert!(last(&pair[0]) < pair[1].offset, "{pair:?} overlap");
    }
}

/// First and last byte of every range that selects something, read the slow way.
fn asked(value: &[u8], length: u64) -> Vec<(u64, u64)> {
    let text = str::from_utf8(value).expect("a range is text");
    let (unit, specs) = text.split_once('=').expect("a range has a unit");
    assert!(unit.trim().eq_ignore_ascii_case("bytes"), "{unit:?}");
    let number = |text: &str| {
        assert!(!text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()), "{text:?} is a number");
        let significant = text.trim_start_matches('0');
        if significant.len() > 30 { u128::MAX } else { significant.parse().unwrap_or(0) }
    };
    let end = u128::from(length);
    let mut asked = Vec::new();
    for spec in specs.split(',').map(str::trim).filter(|it| !it.is_empty()) {
        let (first, last) = spec.split_once('-').expect("a range has a hyphen");
        let (first, last) = match (first, last) {
            ("", suffix) => (end.saturating_sub(number(suffix)), end),
            (first, "") => (number(first), end),
            (first, last) => (number(first), number(last).saturating_add(1)),
        };
        if first < last.min(end) {
            let byte = |it: u128| u64::try_from(it).expect("it is within the length");
            asked.push((byte(first), byte(last.min(end) - 1)));
        }
    }
    asked
}

/// Nothing that was asked for is missing, and nothing else is there but small gaps.
fn answers(slices: &[Slice], asked: &[(u64, u64)]) {
    for (first, end) in asked {
        assert!(slices.iter().any(|it| it.offset <= *first && *end <= last(it)), "{first}-{end} is missing");
    }
    for slice in slices {
        assert!(asked.iter().any(|it| it.0 == slice.offset), "{slice:?} begins where nobody asked");
        assert!(asked.iter().any(|it| it.1 == last(slice)), "{slice:?} ends where nobody asked");
        let mut parts: Vec<_> = asked.iter().filter(|it| slice.offset <= it.0 && it.1 <= last(slice)).collect();
        parts.sort();
        let mut sent = slice.offset;
        for (first, end) in parts {
            assert!(*first <= sent.saturating_add(GAP_BYTES), "{slice:?} sends what nobody asked for");
            sent = sent.max(end.saturating_add(1));
        }
    }
}

fn written(slices: &[Slice]) -> String {
    let specs: Vec<_> = slices.iter().map(|it| format!("{}-{}", it.offset, last(it))).collect();
    format!("bytes={}", specs.join(", "))
}
