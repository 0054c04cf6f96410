//! Names of certificates as names of directories. Pure.

const LENGTH_MAX: usize = 180;

/// Never empty, never hidden, never a way out: small letters, digits, `-`, `_` and inner dots.
pub(super) fn safe(name: &str) -> String {
    let mut safe: String = name
        .to_ascii_lowercase()
        .replace('*', "wildcard_")
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() || "-_.".contains(it) { it } else { '-' })
        .collect();
    while safe.contains("..") {
        safe = safe.replace("..", ".");
    }
    let mut safe = safe.trim_matches('.').to_owned();
    safe.truncate(LENGTH_MAX);
    if safe.is_empty() { "unnamed".to_owned() } else { safe }
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn no_name_leads_out_of_its_directory() {
        for (name, expected) in [
            ("Shop.Example.com", "shop.example.com"),
            ("*.example.com", "wildcard_.example.com"),
            ("../../etc/passwd", "-.-etc-passwd"),
            ("..", "unnamed"),
            ("", "unnamed"),
            ("a\0b\n", "a-b-"),
            ("::1", "--1"),
        ] {
            assert_eq!(safe(name), expected);
        }
        assert!(safe(&"x".repeat(500)).len() < 255);
    }
}
