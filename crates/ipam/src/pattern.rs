//! Names with wildcards: which pools a pattern such as `web-*` names.
//!
//! The language is that of Go's `path.Match`, which users of Spiderpool know: `*` any run of
//! characters, `?` any one, `[a-c]` and `[^a-c]` a class, `\x` just `x`; none of them matches `/`.
//! Invariant: a [`Pattern`] is well formed; what is not says so when it is read, whether or not
//! there is a pool to try it on.

use std::fmt;

/// A name with wildcards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

/// What one place of a pattern takes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Any run, also an empty one.
    Run,
    /// One character of these.
    One(Class),
}

/// A set of characters.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    Any,
    Just(char),
    Among(Vec<(char, char)>),
    NotAmong(Vec<(char, char)>),
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A `[` is not closed.
    #[error("syntax error in pattern: a '[' without ']'")]
    Open,
    /// A class has no members, or `-` or `]` where a member has to be.
    #[error("syntax error in pattern: '[' takes characters or ranges, such as [a-c] or [^0-9]")]
    Class,
    /// A `\` is the last character.
    #[error("syntax error in pattern: a '\\' at the end")]
    Escape,
}

impl Pattern {
    /// True where a name is meant as a pattern: it has `*`, `?`, or both `[` and `]`.
    pub fn is_meant(name: &str) -> bool {
        name.contains(['*', '?']) || (name.contains('[') && name.contains(']'))
    }

    /// Reads a pattern.
    ///
    /// Errors: [`PatternError`]. Cost: O(length).
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut rest = text.chars();
        let mut parts = Vec::new();
        while let Some(next) = rest.next() {
            parts.push(match next {
                '*' => Part::Run,
                '?' => Part::One(Class::Any),
                '[' => Part::One(class(&mut rest)?),
                '\\' => Part::One(Class::Just(rest.next().ok_or(PatternError::Escape)?)),
                plain => Part::One(Class::Just(plain)),
            });
        }
        let text = text.to_owned();
        Ok(Self { text, parts })
    }

    /// True where the pattern takes all of `name`. Cost: O(pattern · name).
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut at, mut part) = (0_usize, 0_usize);
        // Where to go on if what follows the last run does not fit: the run takes one more.
        let mut again: Option<(usize, usize)> = None;
        loop {
            match (self.parts.get(part), name.get(at)) {
                (Some(Part::Run), _) => {
                    part = part.saturating_add(1);
                    again = Some((part, at));
                    continue;
                }
                (Some(Part::One(class)), Some(c)) if class.has(*c) => {
                    (part, at) = (part.saturating_add(1), at.saturating_add(1));
                    continue;
                }
                (None, None) => return true,
                (Some(Part::One(_)), _) | (None, Some(_)) => {}
            }
            match again {
                Some((after, from)) if name.get(from).is_some_and(|c| *c != '/') => {
                    let from = from.saturating_add(1);
                    again = Some((after, from));
                    (part, at) = (after, from);
                }
                Some(_) | None => return false,
            }
        }
    }
}

impl Class {
    fn has(&self, c: char) -> bool {
        let among =
            |ranges: &[(char, char)]| ranges.iter().any(|(lo, hi)| (*lo..=*hi).contains(&c));
        match self {
            Self::Just(just) => *just == c,
            Self::Any => c != '/',
            Self::Among(ranges) => c != '/' && among(ranges),
            Self::NotAmong(ranges) => c != '/' && !among(ranges),
        }
    }
}

/// A class, after its `[`.
fn class(rest: &mut std::str::Chars<'_>) -> Result<Class, PatternError> {
    let mut ahead = rest.clone();
    let negated = ahead.next() == Some('^');
    if negated {
        *rest = ahead;
    }
    let mut ranges = Vec::new();
    loop {
        let mut ahead = rest.clone();
        match ahead.next() {
            None => return Err(PatternError::Open),
            Some(']') if !ranges.is_empty() => {
                *rest = ahead;
                break;
            }
            Some(_) => {}
        }
        let lo = member(rest)?;
        let mut ahead = rest.clone();
        let hi = if ahead.next() == Some('-') {
            *rest = ahead;
            member(rest)?
        } else {
            lo
        };
        ranges.push((lo, hi));
    }
    Ok(if negated {
        Class::NotAmong(ranges)
    } else {
        Class::Among(ranges)
    })
}

/// A character of a class, possibly written `\x`.
fn member(rest: &mut std::str::Chars<'_>) -> Result<char, PatternError> {
    match rest.next().ok_or(PatternError::Open)? {
        '-' | ']' => Err(PatternError::Class),
        '\\' => rest.next().ok_or(PatternError::Escape),
        plain => Ok(plain),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_the_names_that_go_s_path_match_takes() {
        let table = [
            ("web-*", "web-", true),
            ("web-*", "web-1", true),
            ("web-*", "web", false),
            ("*", "", true),
            ("*-v4", "a-v4-v4", true),
            ("*-v4", "a-v4-v6", false),
            ("a*b*c", "abbc", true),
            ("a*b*c", "abbcd", false),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaac", false),
            ("pool-?", "pool-1", true),
            ("pool-?", "pool-", false),
            ("pool-?", "pool-12", false),
            ("p[abc]", "pb", true),
            ("p[a-c]x", "pbx", true),
            ("p[a-c]", "pd", false),
            ("p[^a-c]", "pd", true),
            ("p[^a-c]", "pb", false),
            ("p[c-a]", "pb", false),
            (r"p[\-x]", "p-", true),
            (r"p[\]]", "p]", true),
            (r"a\*b", "a*b", true),
            (r"a\*b", "axb", false),
            ("a]", "a]", true),
            ("*", "a/b", false),
            ("a?b", "a/b", false),
            ("a[^x]b", "a/b", false),
            ("a/*", "a/b", true),
        ];
        for (pattern, name, takes) in table {
            let read = Pattern::parse(pattern).unwrap();
            assert_eq!(read.matches(name), takes, "{pattern} {name}");
            assert_eq!(read.to_string(), pattern);
        }
    }

    #[test]
    fn what_is_malformed_says_how_whatever_it_is_tried_on() {
        let table = [
            ("a[]b", PatternError::Class),
            ("a[^]b", PatternError::Class),
            ("a[-x]", PatternError::Class),
            ("a[x-]", PatternError::Class),
            ("a]b[", PatternError::Open),
            ("a*[x", PatternError::Open),
            ("a[x-", PatternError::Open),
            (r"a*\", PatternError::Escape),
            (r"a[\", PatternError::Escape),
        ];
        for (pattern, error) in table {
            assert_eq!(Pattern::parse(pattern), Err(error), "{pattern}");
        }
    }

    #[test]
    fn a_name_is_a_pattern_by_its_wildcards_alone() {
        for (name, is) in [
            ("a*", true),
            ("a?", true),
            ("a]b[", true),
            ("a[", false),
            ("a", false),
        ] {
            assert_eq!(Pattern::is_meant(name), is, "{name}");
        }
    }
}
