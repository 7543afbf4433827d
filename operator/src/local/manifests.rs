//! Reading manifests: from the text of a file to objects, or to sentences that name the file, the line, the object and the
//! field. Pure. Files may hold several documents; kinds that local mode has no use for are named and skipped.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource;
use kube::api::ObjectMeta;
use postroad_crds::v1alpha1::{GROUP, RelayPool, Upstream};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::local::schema::Schemas;

/// The namespace of objects that name none.
const DEFAULT_NAMESPACE: &str = "default";

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file's name in the folder.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The kinds that local mode uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `postroad.dev/v1alpha1` RelayPool.
    RelayPool,
    /// `postroad.dev/v1alpha1` Upstream.
    Upstream,
    /// `v1` Secret.
    Secret,
}

/// Which object it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// An object. No `Debug`: one of them is a Secret.
#[derive(Clone, PartialEq)]
pub enum Manifest {
    /// A pool.
    Pool(Box<RelayPool>),
    /// An upstream.
    Upstream(Box<Upstream>),
    /// A Secret, with `stringData` laid over `data`.
    Secret(Box<Secret>),
}

/// An object and where it stands.
#[derive(Clone, PartialEq)]
pub struct Document {
    /// Where it begins.
    pub place: Place,
    /// Which object it is.
    pub key: Key,
    /// The object.
    pub manifest: Manifest,
}

/// One sentence for people: place, object, field and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint(pub String);

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one file holds.
#[derive(Default)]
pub struct Parsed {
    /// The objects that can be used.
    pub documents: Vec<Document>,
    /// Those that cannot, as far as they can be told; `None` is a document that could be any object.
    pub broken: Vec<Option<Key>>,
    /// What is wrong.
    pub complaints: Vec<Complaint>,
    /// What is skipped.
    pub warnings: Vec<Complaint>,
}

/// Reads a file's text.
#[must_use]
pub fn parse(file: &str, text: &str, schemas: &Schemas) -> Parsed {
    let mut parsed = Parsed::default();
    for source in split(file, text) {
        match document(&source, schemas) {
            Ok(Found::Document(document)) => parsed.documents.push(*document),
            Ok(Found::Foreign(warning)) => parsed.warnings.push(Complaint(warning)),
            Ok(Found::Nothing) => {}
            Err(Broken { key, complaints }) => {
                parsed.broken.push(key);
                parsed.complaints.extend(complaints.into_iter().map(Complaint));
            }
        }
    }
    parsed
}

enum Found {
    Document(Box<Document>),
    Foreign(String),
    Nothing,
}

struct Broken {
    key: Option<Key>,
    complaints: Vec<String>,
}

impl Broken {
    fn one(key: Option<Key>, complaint: String) -> Self {
        Self { key, complaints: vec![complaint] }
    }
}

/// The text of one document.
struct Source<'a> {
    file: &'a str,
    /// The line of the file on which the text begins, from 1.
    first: usize,
    text: &'a str,
}

impl Source<'_> {
    /// Where the content begins, behind blank lines and comments.
    fn start(&self) -> Place {
        let blank = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
        Place { file: self.file.to_owned(), line: self.first + self.text.lines().take_while(blank).count() }
    }

    /// Where the error is, in the file.
    fn place(&self, error: &serde_yaml::Error) -> Place {
        match error.location() {
            Some(location) => {
                // What is missing at the end is missed behind the last line.
                let line = location.line().min(self.text.lines().count().max(1));
                Place { file: self.file.to_owned(), line: self.first + line - 1 }
            }
            None => self.start(),
        }
    }
}

/// The documents of a file. A line that starts with `---` separates, whatever stands around it (YAML 1.2 §9.1.2).
fn split<'a>(file: &'a str, text: &'a str) -> Vec<Source<'a>> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let behind = line.strip_prefix("---");
        if behind.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            documents.push(Source { file, first, text: &text[start..at] });
            // What stands behind the marker on its line belongs to the document.
            start = at + 3;
            first = number + 1;
        }
        at += line.len();
    }
    documents.push(Source { file, first, text: &text[start..] });
    documents
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<ObjectMeta>,
}

fn document(source: &Source<'_>, schemas: &Schemas) -> Result<Found, Broken> {
    let value: serde_yaml::Value = serde_yaml::from_str(source.text).map_err(|error| {
        let place = source.place(&error);
        Broken::one(None, format!("{place}: this is not YAML: {}", without_location(&error)))
    })?;
    if value.is_null() {
        return Ok(Found::Nothing);
    }
    let place = source.start();
    let fault = |what: String| Broken::one(None, format!("{place}: {what}"));
    let unusable =
        || fault("this is not a Kubernetes object: it needs apiVersion, kind and metadata".to_owned());
    let header: Header = serde_yaml::from_value(value.clone()).map_err(|_| unusable())?;
    let (Some(version), Some(kind)) = (header.api_version, header.kind) else { return Err(unusable()) };
    let Some(known) = kind_of(&version, &kind) else {
        if version.starts_with(&format!("{GROUP}/")) {
            return Err(fault(format!(
                "{version} has no {kind}: use RelayPool or Upstream of {GROUP}/v1alpha1"
            )));
        }
        return Ok(Found::Foreign(format!(
            "{place}: {kind} ({version}) means nothing without a cluster and is skipped"
        )));
    };
    let metadata = header.metadata.unwrap_or_default();
    let name = metadata.name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| fault(format!("{kind}: metadata.name is required")))?;
    let namespace = metadata.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let key = Key { kind: known, namespace, name };
    let manifest = Reader { source, place: &place, key: &key, schemas }.manifest(&value)?;
    Ok(Found::Document(Box::new(Document { place, key, manifest })))
}

fn kind_of(version: &str, kind: &str) -> Option<Kind> {
    match (version, kind) {
        ("postroad.dev/v1alpha1", "RelayPool") => Some(Kind::RelayPool),
        ("postroad.dev/v1alpha1", "Upstream") => Some(Kind::Upstream),
        ("v1", "Secret") => Some(Kind::Secret),
        _ => None,
    }
}

/// serde_yaml's text without places: they count from the document's first line, not the file's, and ours is told already.
fn without_location(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let mut pieces = text.split(" at line ");
    let mut told = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        // `<line> column <column><rest>`
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        let rest = rest.strip_prefix(" column ").unwrap_or(rest);
        told.push_str(rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    told
}

/// Reads one document whose header is known.
struct Reader<'a> {
    source: &'a Source<'a>,
    place: &'a Place,
    key: &'a Key,
    schemas: &'a Schemas,
}

impl Reader<'_> {
    fn manifest(&self, value: &serde_yaml::Value) -> Result<Manifest, Broken> {
        match self.key.kind {
            Kind::RelayPool => {
                let pool: RelayPool = self.typed()?;
                self.obeys(self.schemas.pool(&pool), pool.validate_cel().err())?;
                Ok(Manifest::Pool(Box::new(pool)))
            }
            Kind::Upstream => {
                let upstream: Upstream = self.typed()?;
                self.obeys(self.schemas.upstream(&upstream), upstream.validate_cel().err())?;
                Ok(Manifest::Upstream(Box::new(upstream)))
            }
            Kind::Secret => self.secret(value).map(|secret| Manifest::Secret(Box::new(secret))),
        }
    }

    /// Reads the text itself, not the value read from it, because only then errors know their line.
    fn typed<T: DeserializeOwned + Resource>(&self) -> Result<T, Broken> {
        let mut object: T = serde_yaml::from_str(self.source.text).map_err(|error| {
            let place = self.source.place(&error);
            Broken::one(
                Some(self.key.clone()),
                format!("{place}: {}: {}", self.key, without_location(&error)),
            )
        })?;
        object.meta_mut().namespace = Some(self.key.namespace.clone());
        Ok(object)
    }

    fn obeys(
        &self,
        schema: Vec<String>,
        rules: Option<kube::core::cel::ValidationErrors>,
    ) -> Result<(), Broken> {
        let rules = rules.map(|errors| errors.into_vec()).unwrap_or_default();
        let faults = schema.into_iter().chain(rules.iter().map(ToString::to_string));
        let complaints: Vec<String> =
            faults.map(|fault| format!("{}: {}: {fault}", self.place, self.key)).collect();
        if complaints.is_empty() {
            return Ok(());
        }
        Err(Broken { key: Some(self.key.clone()), complaints })
    }

    /// A Secret's errors never come from a parser: those quote values.
    fn secret(&self, value: &serde_yaml::Value) -> Result<Secret, Broken> {
        let fault = |what: String| {
            Broken::one(Some(self.key.clone()), format!("{}: {}: {what}", self.place, self.key))
        };
        let value = serde_json::to_value(value).map_err(|_| fault("a key is not text".to_owned()))?;
        let mut data = BTreeMap::new();
        for field in ["data", "stringData"] {
            data.extend(entries(field, &value[field]).map_err(fault)?);
        }
        Ok(Secret {
            metadata: ObjectMeta {
                name: Some(self.key.name.clone()),
                namespace: Some(self.key.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: value["type"].as_str().map(str::to_owned),
            data: Some(data),
            ..Secret::default()
        })
    }
}

/// The entries of a Secret's `data`, which is base64, or `stringData`, which is text.
fn entries(field: &str, value: &Value) -> Result<Vec<(String, ByteString)>, String> {
    let entries = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(entries) => entries,
        _ => return Err(format!("{field} is not a map of keys and values")),
    };
    let entry = |(key, value): (&String, &Value)| {
        let text = value.as_str().ok_or_else(|| format!("{field}.{key} is not text: put it in quotes"))?;
        let bytes = if field == "data" {
            serde_json::from_value(value.clone())
                .map_err(|_| format!("{field}.{key} is not base64: plain text goes under stringData"))?
        } else {
            ByteString(text.as_bytes().to_vec())
        };
        Ok((key.clone(), bytes))
    };
    entries.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str =
        "apiVersion: postroad.dev/v1alpha1\nkind: Upstream\nmetadata: {name: box}\nspec: {sandbox: {}}\n";

    fn read(text: &str) -> Parsed {
        parse("a.yaml", text, &Schemas::default())
    }

    fn check(text: &str, expected: &str) {
        let complaints: Vec<String> = read(text).complaints.iter().map(ToString::to_string).collect();
        assert!(
            complaints.iter().any(|found| found.contains(expected)),
            "{expected:?} not in {complaints:?}"
        );
        let clean = |found: &String| found.starts_with("a.yaml:") && !found.contains("hunter2");
        assert!(complaints.iter().all(clean), "{complaints:?}");
    }

    #[test]
    fn documents_are_read_with_their_lines_and_namespaces() {
        let other = UPSTREAM.replace("name: box", "name: b, namespace: n");
        let parsed = read(&format!("# a comment\n\n{UPSTREAM}---\n\n---\n# another\n{other}"));
        let found: Vec<String> =
            parsed.documents.iter().map(|document| format!("{} {}", document.place, document.key)).collect();
        assert_eq!(found, ["a.yaml:3 Upstream default/box", "a.yaml:11 Upstream n/b"]);
        assert!(parsed.complaints.is_empty() && parsed.warnings.is_empty());
    }

    #[test]
    fn what_is_no_object_is_told_by_its_line() {
        check(
            &format!("{UPSTREAM}---\na: 1\nkind: [\nx: 1\n"),
            "a.yaml:8: this is not YAML: did not find expected ',' or ']', while parsing a flow sequence",
        );
        check("\n\njust text\n", "a.yaml:3: this is not a Kubernetes object");
        check("kind: Upstream\n", "a.yaml:1: this is not a Kubernetes object");
        check("apiVersion: postroad.dev/v2\nkind: Upstream\n", "postroad.dev/v2 has no Upstream");
        check("apiVersion: v1\nkind: Secret\n", "metadata.name is required");
    }

    #[test]
    fn a_wrong_field_is_told_by_line_object_and_name() {
        let wrong = UPSTREAM.replace("spec: {sandbox: {}}", "spec:\n  sandbox: {}\n  bogus: 1");
        check(
            &format!("{UPSTREAM}---\n{wrong}"),
            "a.yaml:11: Upstream default/box: spec: unknown field `bogus`",
        );
        let bounds = UPSTREAM.replace("sandbox: {}", "sandbox: {keepMessages: 0}");
        check(&bounds, "a.yaml:1: Upstream default/box: spec.sandbox.keepMessages: must be at least 1");
        check(&UPSTREAM.replace("sandbox: {}", ""), "exactly one of smarthost and sandbox");
    }

    #[test]
    fn secrets_are_read_from_both_maps_and_never_quoted() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
        let parsed = read(&format!("{text}data: {{a: eA==, b: eA==}}\nstringData: {{b: \"y\\n\"}}\n"));
        let Manifest::Secret(secret) = &parsed.documents[0].manifest else { panic!("a Secret") };
        let data: Vec<(&str, &[u8])> =
            secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect();
        assert_eq!(data, [("a", &b"x"[..]), ("b", b"y\n")]);
        check(&format!("{text}data: {{a: hunter2!}}\n"), "data.a is not base64");
        check(&format!("{text}stringData: hunter2\n"), "stringData is not a map");
        check(&format!("{text}stringData: {{a: [hunter2]}}\n"), "stringData.a is not text");
    }

    #[test]
    fn other_kinds_are_named_and_skipped() {
        let parsed = read("apiVersion: v1\nkind: Namespace\nmetadata: {name: mail}\n");
        assert!(parsed.complaints.is_empty() && parsed.documents.is_empty());
        assert!(
            parsed.warnings[0].0.contains("a.yaml:1: Namespace (v1) means nothing"),
            "{:?}",
            parsed.warnings
        );
    }
}
