//! `Range`: which bytes of a representation are asked for (RFC 9110 14.1.2). Pure.
//!
//! A range that does not parse is as if it were not there; only one that parses and selects nothing is a 416. Asking
//! for many ranges is a known way to make a server work hard, so more than `RANGES_MAX` are answered by the whole.

/// More than any reader of documents or videos asks for at once.
const RANGES_MAX: usize = 16;
/// About what the head of a part costs: a smaller gap is cheaper to send than to leave out.
const GAP_BYTES: u64 = 80;

/// First byte and length, never empty, always within the representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    pub offset: u64,
    pub length: u64,
}

impl Slice {
    pub(super) fn last(self) -> u64 {
        self.offset + self.length - 1
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Whole,
    One(Slice),
    /// At least two, in the order of the request, or ascending when some were joined.
    Several(Vec<Slice>),
    Unsatisfiable,
}

/// `value` of the one `Range` header; `length` of the representation.
pub fn wanted(value: &[u8], length: u64) -> Wanted {
    let Some(specs) = str::from_utf8(value).ok().and_then(set) else {
        return Wanted::Whole;
    };
    let mut slices = Vec::new();
    let mut count = 0;
    for spec in specs.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty()) {
        count += 1;
        if count > RANGES_MAX {
            return Wanted::Whole;
        }
        match slice(spec, length) {
            None => return Wanted::Whole,
            Some(Selected::Nothing) => {}
            // An empty representation has no `Content-Range` to name; the whole of it is what was asked for.
            Some(Selected::All) => return Wanted::Whole,
            Some(Selected::Slice(slice)) => slices.push(slice),
        }
    }
    match (count, slices.as_slice()) {
        (0, _) => Wanted::Whole,
        (_, []) => Wanted::Unsatisfiable,
        (_, [one]) => Wanted::One(*one),
        _ => join(slices),
    }
}

/// What follows `bytes=`. Units are case-insensitive.
fn set(value: &str) -> Option<&str> {
    let (unit, specs) = value.trim_matches([' ', '\t']).split_once('=')?;
    unit.eq_ignore_ascii_case("bytes").then_some(specs)
}

enum Selected {
    Slice(Slice),
    Nothing,
    All,
}

/// `None` when it is no range.
fn slice(spec: &str, length: u64) -> Option<Selected> {
    let (first, last) = spec.split_once('-')?;
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(match (suffix, length) {
            (0, _) => Selected::Nothing,
            (_, 0) => Selected::All,
            _ => {
                let taken = suffix.min(length);
                Selected::Slice(Slice { offset: length - taken, length: taken })
            }
        });
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    if first >= length {
        return Some(Selected::Nothing);
    }
    let last = last.min(length - 1);
    Some(Selected::Slice(Slice { offset: first, length: last - first + 1 }))
}

/// Digits only (`parse` would take a `+`); a number too large for us is larger than any file.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

/// Joins what overlaps or nearly touches, so that no byte is sent twice. The order of the request stays if nothing was.
fn join(slices: Vec<Slice>) -> Wanted {
    let mut sorted = slices.clone();
    sorted.sort_by_key(|slice| slice.offset);
    let mut joined: Vec<Slice> = Vec::with_capacity(sorted.len());
    for slice in sorted {
        match joined.last_mut() {
            Some(before) if slice.offset <= before.last().saturating_add(1 + GAP_BYTES) => {
                before.length = before.last().max(slice.last()) - before.offset + 1;
            }
            _ => joined.push(slice),
        }
    }
    match joined.as_slice() {
        [one] => Wanted::One(*one),
        _ if joined.len() == slices.len() => Wanted::Several(slices),
        _ => Wanted::Several(joined),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(offset: u64, length: u64) -> Wanted {
        Wanted::One(Slice { offset, length })
    }

    fn several(slices: &[(u64, u64)]) -> Wanted {
        Wanted::Several(slices.iter().map(|&(offset, length)| Slice { offset, length }).collect())
    }

    #[test]
    fn ranges_select_what_the_rfc_says() {
        let check = |value: &str, length: u64, expected: Wanted| {
            assert_eq!(wanted(value.as_bytes(), length), expected, "{value} of {length}");
        };
        check("bytes=0-0", 10, one(0, 1));
        check("bytes=2-5", 10, one(2, 4));
        check("Bytes=2-", 10, one(2, 8));
        check("bytes=-3", 10, one(7, 3));
        check("bytes=-30", 10, one(0, 10));
        check("bytes=5-99", 10, one(5, 5));
        check("bytes= 1-2 ", 10, one(1, 2));
        check("bytes=9-99999999999999999999999", 10, one(9, 1));
        check("bytes=5000000000-", 5_368_709_120, one(5_000_000_000, 368_709_120));
        // Nothing selected.
        check("bytes=10-", 10, Wanted::Unsatisfiable);
        check("bytes=-0", 10, Wanted::Unsatisfiable);
        check("bytes=99999999999999999999999-", 10, Wanted::Unsatisfiable);
        check("bytes=0-", 0, Wanted::Unsatisfiable);
        check("bytes=20-30,-0", 10, Wanted::Unsatisfiable);
        check("bytes=-5", 0, Wanted::Whole);
        // No ranges at all.
        for nonsense in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "items=0-1",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=+1-2",
            "bytes=1",
            "bytes=--1",
        ] {
            check(nonsense, 10, Wanted::Whole);
        }
        check("bytes=0-1,x", 10, Wanted::Whole);
        // Several.
        check("bytes=0-9,500-509", 1000, several(&[(0, 10), (500, 10)]));
        check("bytes=500-509,0-9", 1000, several(&[(500, 10), (0, 10)]));
        check("bytes=0-9,,-10", 1000, several(&[(0, 10), (990, 10)]));
        check("bytes=0-9,2000-", 1000, one(0, 10));
        check("bytes=0-9,5-20", 1000, one(0, 21));
        check("bytes=0-9,50-59", 1000, one(0, 60));
        check("bytes=500-509,5-20,0-9", 1000, several(&[(0, 21), (500, 10)]));
        let many = format!("bytes={}", vec!["0-0"; RANGES_MAX + 1].join(","));
        check(&many, 1000, Wanted::Whole);
    }

    proptest! {
        #[test]
        fn slices_stay_inside_and_send_no_byte_twice(value in "bytes=[0-9,\\- ]{0,40}", length in 0..200_u64) {
            let slices = match wanted(value.as_bytes(), length) {
                Wanted::One(slice) => vec![slice],
                Wanted::Several(slices) => slices,
                Wanted::Whole | Wanted::Unsatisfiable => Vec::new(),
            };
            for slice in &slices {
                prop_assert!(slice.length > 0 && slice.offset + slice.length <= length);
            }
            prop_assert!(slices.iter().map(|slice| slice.length).sum::<u64>() <= length);
        }
    }
}
