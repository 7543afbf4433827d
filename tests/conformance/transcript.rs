//! Reading the files of relay/smtp/tests/transcripts/server; their form is told in relay/smtp/tests/protocol/transcripts.rs.

use std::collections::HashMap;
use std::path::Path;

/// One file.
pub(crate) struct Transcript {
    pub(crate) file: String,
    pub(crate) lines: Vec<Line>,
}

impl Transcript {
    /// How the listener is set: `name=value` of the first line, none when it begins otherwise.
    pub(crate) fn options(&self) -> HashMap<&str, &str> {
        let first = self.lines.first().filter(|line| line.speaker == '!');
        let words = first.and_then(|line| line.text.strip_prefix("server ")).unwrap_or_default();
        words.split(' ').filter_map(|word| word.split_once('=')).collect()
    }

    /// Whether something happens to the server that ends it.
    pub(crate) fn stops_the_server(&self) -> bool {
        self.does("shutdown")
    }

    /// Whether the client falls silent.
    pub(crate) fn waits_for_a_timeout(&self) -> bool {
        self.does("timeout")
    }

    /// Whether somebody says this.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.text.contains(text))
    }

    fn does(&self, what: &str) -> bool {
        self.lines.iter().any(|line| line.speaker == '!' && line.text == what)
    }
}

/// One line of it.
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) speaker: char,
    pub(crate) text: String,
}

impl Line {
    /// What the client sends.
    pub(crate) fn octets(&self) -> Vec<u8> {
        let mut octets = unescape(&self.text);
        if self.speaker.is_ascii_uppercase() {
            octets.extend_from_slice(b"\r\n");
        }
        octets
    }
}

/// All files, by name.
pub(crate) fn load_all() -> Vec<Transcript> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../relay/smtp/tests/transcripts/server");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_unstable();
    paths.iter().map(|path| load(path)).collect()
}

fn load(path: &Path) -> Transcript {
    let text = std::fs::read_to_string(path).unwrap();
    let file = path.file_name().unwrap().to_str().unwrap().to_owned();
    let spoken = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let lines = spoken.map(|(index, line)| {
        let (speaker, text) = line.split_once(':').unwrap();
        let text = text.strip_prefix(' ').unwrap_or(text).to_owned();
        Line { number: index + 1, speaker: speaker.parse().unwrap(), text }
    });
    Transcript { file, lines: lines.collect() }
}

/// `\r \n \0 \\ \xNN` are octets, `{N}` behind a character repeats it.
fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = match (first, behind) {
            (b'\\', [b'x', high, low, behind @ ..]) => {
                let digits = [*high, *low];
                octets.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                behind
            }
            (b'\\', [letter, behind @ ..]) => {
                octets.push(match letter {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b'0' => 0,
                    other => *other,
                });
                behind
            }
            (b'{', [digit, ..]) if digit.is_ascii_digit() => {
                let end = behind.iter().position(|b| *b == b'}').unwrap();
                let count: usize = std::str::from_utf8(&behind[..end]).unwrap().parse().unwrap();
                let last = *octets.last().unwrap();
                octets.extend(std::iter::repeat_n(last, count - 1));
                &behind[end + 1..]
            }
            _ => {
                octets.push(*first);
                behind
            }
        };
    }
    octets
}
