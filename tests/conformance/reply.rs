//! When a reply of the relay is the one that a transcript expects.

/// What the relay offers always, and a transcript only lists where its rule needs it.
const ALWAYS_OFFERED: [&str; 2] = ["DSN", "SMTPUTF8"];

/// Panics, naming the `place`, unless they are the same in what decides.
pub(crate) fn assert_same(place: &str, said: &[String], expected: &[&str]) {
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    if expected.len() > 1 && expected[0].contains(" greets ") {
        assert_eq!(offers(&said), offers(expected), "{place}: {said:?}");
        for keyword in ALWAYS_OFFERED {
            assert!(said.iter().any(|line| &line[4..] == keyword), "{place}: no {keyword} in {said:?}");
        }
        return;
    }
    let decisive = |lines: &[&str]| lines.iter().map(|line| decisive(line).to_owned()).collect::<Vec<_>>();
    assert_eq!(decisive(&said), decisive(expected), "{place}: {said:?}");
}

/// The lines of an EHLO reply without their codes, sorted but for the greeting, and without what is always offered.
fn offers<'a>(reply: &[&'a str]) -> Vec<&'a str> {
    let mut lines: Vec<&str> = reply.iter().map(|line| line.split_at(4).1).collect();
    lines.retain(|line| !ALWAYS_OFFERED.contains(line));
    lines[1..].sort_unstable();
    lines
}

/// What of a reply line must be as expected: of a positive one and a challenge with a nonce the code, of a refusal its
/// enhanced status code too. The rest is the wording of whoever decides.
fn decisive(line: &str) -> &str {
    let (code, text) = line.split_at_checked(4).unwrap_or((line, ""));
    let enhanced = text
        .split(' ')
        .next()
        .filter(|word| word.split('.').count() == 3 && !word.contains(char::is_alphabetic));
    match (code, enhanced) {
        ("220 " | "354 ", _) => code,
        // `r=`: SCRAM's first message, which is never the same.
        ("334 ", _) if text.starts_with("cj1") => code,
        (code, Some(_)) if code.starts_with('2') => code,
        (_, Some(enhanced)) => &line[..code.len() + enhanced.len()],
        (_, None) => line,
    }
}
