//! Reading `MAIL FROM:<path> parameters` and `RCPT TO:<path> parameters` (RFC 5321 §4.1.1.2, §4.1.1.3). Pure.
//!
//! The address is not judged, only separated: a test may send any.

/// The argument of MAIL or RCPT.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PathArgument {
    /// What stood between the angle brackets.
    pub(crate) path: String,
    /// The parameters behind it.
    pub(crate) parameters: Vec<String>,
}

/// Reads `argument`, which has to begin with `keyword` (`FROM:` or `TO:`); `None` when it is not well formed.
pub(crate) fn path_argument(argument: &str, keyword: &str) -> Option<PathArgument> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    if !head.eq_ignore_ascii_case(keyword) {
        return None;
    }
    let rest = rest.strip_prefix('<')?;
    let end = closing_bracket(rest)?;
    let behind = &rest[end + 1..];
    if !behind.is_empty() && !behind.starts_with(' ') {
        return None;
    }
    let parameters = behind.split(' ').filter(|parameter| !parameter.is_empty()).map(str::to_owned).collect();
    Some(PathArgument { path: rest[..end].to_owned(), parameters })
}

/// Where the path ends: a quoted local part may hold brackets of its own.
fn closing_bracket(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(argument: &str, expected: Option<(&str, &[&str])>) {
        let found = path_argument(argument, "FROM:");
        let found = found.as_ref().map(|found| (found.path.as_str(), found.parameters.clone()));
        let expected = expected
            .map(|(path, parameters)| (path, parameters.iter().map(ToString::to_string).collect::<Vec<_>>()));
        assert_eq!(found, expected, "{argument}");
    }

    #[test]
    fn paths_and_parameters_are_separated() {
        check("FROM:<a@b>", Some(("a@b", &[])));
        check("from:<> SIZE=1 BODY=8BITMIME", Some(("", &["SIZE=1", "BODY=8BITMIME"])));
        check("FROM:<\"a>\\\"b\"@c> X", Some(("\"a>\\\"b\"@c", &["X"])));
    }

    #[test]
    fn what_is_not_a_path_is_refused() {
        for argument in
            ["", "FROM:", "FROM: <a@b>", "FROM:a@b", "FROM:<a@b", "FROM:<a@b>SIZE=1", "TO:<a@b>", "FRO\u{e9}"]
        {
            check(argument, None);
        }
    }
}
