//! The directory of a zip file (a WAR, a JAR) and the beginning of single entries: as much as a check before a start
//! needs. Everything in such a file may be wrong, so each number is bounded before it is used. Blocking.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// A comment of the greatest length, and the record before it.
const TAIL_BYTES: u64 = 65_557;
/// A directory larger than this is none that a web app has.
const DIRECTORY_BYTES_MAX: u64 = 64 << 20;
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL: &[u8] = b"PK\x03\x04";
const DEFLATED: u16 = 8;

#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    pub(super) entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    method: u16,
    packed: u64,
    at: u64,
}

/// Where the directory is.
struct Place {
    at: u64,
    size: u64,
    /// What stands before the archive: a launch script of an executable JAR.
    prefix: u64,
}

// === impl Archive ===

impl Archive {
    /// An error says what is wrong with the file, without its name.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|error| error.kind().to_string())?;
        let place = directory(&mut file)?;
        let mut bytes = Vec::new();
        let read = file.seek(SeekFrom::Start(place.at)).and_then(|_| (&file).take(place.size).read_to_end(&mut bytes));
        read.map_err(|error| error.to_string())?;
        let entries = entries(&bytes, place.prefix).ok_or("its directory is broken")?;
        Ok(Self { file, entries })
    }

    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The first `most` bytes of an entry, unpacked.
    pub(super) fn read(&self, entry: &Entry, most: u64) -> io::Result<Vec<u8>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(entry.at))?;
        let mut head = [0; 30];
        file.read_exact(&mut head)?;
        if !head.starts_with(LOCAL) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an entry is not where the directory says"));
        }
        file.seek(SeekFrom::Current(i64::from(word(&head, 26)) + i64::from(word(&head, 28))))?;
        let packed = file.take(entry.packed);
        let mut content = Vec::new();
        if entry.method == DEFLATED {
            flate2::read::DeflateDecoder::new(packed).take(most).read_to_end(&mut content)?;
        } else {
            packed.take(most).read_to_end(&mut content)?;
        }
        Ok(content)
    }
}

fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |it| u16::from_le_bytes([it[0], it[1]]))
}

fn double(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 2)) << 16
}

fn quad(bytes: &[u8], at: usize) -> u64 {
    double(bytes, at) | double(bytes, at + 4) << 32
}

/// Reads the record at the end, which is what is missing while a file is still being copied.
fn directory(file: &mut File) -> Result<Place, String> {
    let wrong = |error: io::Error| error.to_string();
    let length = file.metadata().map_err(wrong)?.len();
    let start = length.saturating_sub(TAIL_BYTES);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(start)).map_err(wrong)?;
    file.take(TAIL_BYTES).read_to_end(&mut tail).map_err(wrong)?;
    let end = memchr::memmem::rfind(&tail, END).filter(|end| tail.len() - end >= 22);
    let end = end.ok_or("it is not a whole zip archive; perhaps it is still being copied")?;
    let (mut size, mut at) = (double(&tail, end + 12), double(&tail, end + 16));
    let mut behind = start + end as u64;
    if size == u64::from(u32::MAX) || at == u64::from(u32::MAX) || word(&tail, end + 10) == u16::MAX {
        let locator = end.checked_sub(20).filter(|&it| tail[it..].starts_with(LOCATOR_64));
        if let Some(locator) = locator {
            let mut record = [0; 56];
            let found = quad(&tail, locator + 8);
            file.seek(SeekFrom::Start(found)).and_then(|_| file.read_exact(&mut record)).map_err(wrong)?;
            if !record.starts_with(END_64) {
                return Err("its directory is broken".to_owned());
            }
            (size, at, behind) = (quad(&record, 40), quad(&record, 48), found);
        }
    }
    if size > DIRECTORY_BYTES_MAX {
        return Err("its directory is larger than 64 MiB".to_owned());
    }
    let begins = behind.checked_sub(size).filter(|begins| *begins >= at).ok_or("its directory is broken")?;
    Ok(Place { at: begins, size, prefix: begins - at })
}

fn entries(mut bytes: &[u8], prefix: u64) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        if !bytes.starts_with(ENTRY) || bytes.len() < 46 {
            return None;
        }
        let name_end = 46 + usize::from(word(bytes, 28));
        let next = name_end + usize::from(word(bytes, 30)) + usize::from(word(bytes, 32));
        entries.push(Entry {
            name: String::from_utf8_lossy(bytes.get(46..name_end)?).into_owned(),
            method: word(bytes, 10),
            packed: double(bytes, 20),
            at: double(bytes, 42) + prefix,
        });
        bytes = bytes.get(next..)?;
    }
    Some(entries)
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use super::*;

    /// A zip archive of `files`, the first one deflated and the others stored, behind `prefix`.
    pub(in crate::app) fn zip(prefix: &[u8], files: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut body, mut directory) = (prefix.to_vec(), Vec::new());
        for (index, (name, content)) in files.iter().enumerate() {
            let (method, packed) = if index == 0 {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).expect("packed");
                (DEFLATED, encoder.finish().expect("packed"))
            } else {
                (0, content.to_vec())
            };
            let at = (body.len() - prefix.len()) as u32;
            let sizes = [packed.len() as u32, content.len() as u32];
            let common = [&[20, 0, 0, 0][..], &method.to_le_bytes(), &[0; 8], &sizes[0].to_le_bytes()].concat();
            let rest = [&sizes[1].to_le_bytes()[..], &(name.len() as u16).to_le_bytes(), &[0; 2]].concat();
            body.extend([LOCAL, &common, &rest, name.as_bytes(), &packed].concat());
            directory.extend([ENTRY, &[20, 0], &common, &rest, &[0; 10], &at.to_le_bytes(), name.as_bytes()].concat());
        }
        let (size, at) = (directory.len() as u32, (body.len() - prefix.len()) as u32);
        let count = (files.len() as u16).to_le_bytes();
        let end = [END, &[0; 4], &count, &count, &size.to_le_bytes(), &at.to_le_bytes(), &[0; 2]].concat();
        [body, directory, end].concat()
    }

    fn opened(bytes: &[u8]) -> Result<Archive, String> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        Archive::open(file.path())
    }

    #[test]
    fn entries_are_found_and_read_also_behind_a_launch_script() {
        for prefix in [&b""[..], b"#!/bin/sh\nexec java -jar $0\n"] {
            let archive = opened(&zip(prefix, &[("a/b.txt", b"deflated text"), ("c", b"stored")])).expect("an archive");
            let read =
                |name: &str, most| archive.read(archive.find(name).expect("the entry"), most).expect("its content");
            assert_eq!((read("a/b.txt", 100), read("c", 3)), (b"deflated text".to_vec(), b"sto".to_vec()));
            assert!(archive.find("d").is_none());
        }
    }

    #[test]
    fn a_file_that_is_cut_or_no_archive_is_refused_and_no_byte_makes_it_panic() {
        let whole = zip(b"", &[("a", b"some content"), ("b", b"more")]);
        for length in 0..whole.len() {
            assert!(opened(&whole[..length]).is_err(), "cut to {length}");
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] = !bent[at];
            if let Ok(archive) = opened(&bent) {
                for entry in &archive.entries {
                    let _ = archive.read(entry, 1 << 20);
                }
            }
        }
    }
}
