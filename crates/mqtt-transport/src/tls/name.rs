//! The name that a server's certificate must have.

use rustls_pki_types::ServerName;

/// A name that can be checked. A library given an empty one, or one that begins with a dot, would
/// check nothing or accept any name below it. The dot that ends an absolute name is no part of what
/// certificates say.
pub(super) fn parse(name: &str) -> Result<ServerName<'_>, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.starts_with('.') || name.ends_with('.') {
        return Err("no part of a host name is empty");
    }
    ServerName::try_from(name).map_err(|_| "not a host name or an address")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "a.b-c.example", "a_b.example", "127.0.0.1", "::1"] {
            assert_eq!(parse(name).unwrap().to_str(), name);
        }
        assert_eq!(parse("a.example.").unwrap().to_str(), "a.example");
        for name in [
            "",
            ".",
            "..",
            ".example",
            "a b",
            "é.example",
            "a..",
            "*.example",
        ] {
            assert!(parse(name).is_err(), "{name:?}");
        }
    }
}
