//! Patterns that choose refs and paths.

/// Tells whether a pattern matches a whole name; `*` stands for any characters, slashes too, and `?` for one byte.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    matches_by(pattern, name, |p| *p == b'*', |p, byte| *p == b'?' || p == byte)
}

/// Tells whether a pattern matches a whole path; `*` and `?` stand for characters of one part, a part `**` for any
/// number of parts.
pub(crate) fn matches_path(pattern: &[u8], path: &[u8]) -> bool {
    matches_by(&parts(pattern), &parts(path), |p| *p == b"**", |p, part| matches(p, part))
}

/// Returns the parts of a path that have a name.
fn parts(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect()
}

/// Matches in time linear in both but for one pair of places to go back to, the usual way for `*`.
fn matches_by<P, N>(pattern: &[P], name: &[N], is_any: impl Fn(&P) -> bool, is_one: impl Fn(&P, &N) -> bool) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(any) if is_any(any) => {
                star = Some((p, n));
                p += 1;
            }
            Some(one) if is_one(one, &name[n]) => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star_at, taken)) = star else { return false };
                star = Some((star_at, taken + 1));
                p = star_at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(is_any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_characters_of_one_part_and_two_for_parts() {
        let cases = [
            ("/srv/git/*", "/srv/git/a.git", true),
            ("/srv/git/*", "/srv/git/team/a.git", false),
            ("/srv/git/**", "/srv/git/a.git", true),
            ("/srv/git/**", "/srv/git/team/sub/a.git", true),
            ("/srv/git/**", "/srv/gitlab/a.git", false),
            ("/srv/git/**/a.git", "/srv/git/a.git", true),
            ("/srv/git/**/a.git", "/srv/git/x/y/a.git", true),
            ("/srv/git/**/a.git", "/srv/git/x/b.git", false),
            ("/srv/*/web-*.git", "/srv/git/web-shop.git", true),
            ("/srv/*/web-*.git", "/srv/git/team/web-shop.git", false),
            ("/srv/git/team-?/a.git", "/srv/git/team-b/a.git", true),
            ("**/a.git", "/srv/git/a.git", true),
            ("/srv//git/a.git/", "/srv/git/a.git", true),
            ("/srv/git", "/srv/git/a.git", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches_path(pattern.as_bytes(), path.as_bytes()), expected, "{pattern} {path}");
        }
    }
}
