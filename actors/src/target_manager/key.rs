//! A name in lower case, of fixed size: the key by which targets are told apart.

/// The longest name, in bytes.
const LONGEST: usize = 64;

/// A target's name, whatever its case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey([u8; LONGEST]);

impl std::fmt::Debug for TargetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl TargetKey {
    /// The key of a name; `None`: no target can be called so.
    pub fn of(name: &str) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_graphic();
        if name.is_empty() || name.len() > LONGEST || !name.bytes().all(is_plain) {
            return None;
        }
        let mut bytes = [0; LONGEST];
        for (to, byte) in bytes.iter_mut().zip(name.bytes()) {
            *to = byte.to_ascii_lowercase();
        }
        Some(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_whatever_case_and_no_other() {
        assert_eq!(TargetKey::of("Big.Host"), TargetKey::of("bIG.hOST"));
        assert_ne!(TargetKey::of("a"), TargetKey::of("aa"));
        assert!(TargetKey::of(&"x".repeat(64)).is_some());
        for none in ["", "a b", "ü", "a\0", &"x".repeat(65)] {
            assert_eq!(TargetKey::of(none), None, "{none}");
        }
    }
}
