//! The folder of manifests over time: what its files say now, and for an object that cannot be read any more what it said
//! when it last could. Reads files; decides nothing about pools.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::local::manifests::{Complaint, Document, Key, Manifest, Parsed, parse};
use crate::local::schema::Schemas;

/// The texts of the files by name, or why one cannot be read.
type Texts = BTreeMap<String, Result<String, String>>;

/// The manifests of one folder.
pub struct Folder {
    path: PathBuf,
    schemas: Schemas,
    texts: Option<Texts>,
    documents: BTreeMap<String, Vec<Document>>,
}

/// What a reading has found.
#[derive(Default)]
pub struct Reading {
    /// How many manifest files there are.
    pub files: usize,
    /// The objects in force.
    pub objects: BTreeMap<Key, Document>,
    /// What is wrong.
    pub complaints: Vec<Complaint>,
    /// What is skipped.
    pub warnings: Vec<Complaint>,
}

/// The folder itself cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the folder {} cannot be read: {why}", .path.display())]
pub struct FolderError {
    path: PathBuf,
    why: io::Error,
}

impl Folder {
    /// The folder at this path; nothing is read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, schemas: Schemas::default(), texts: None, documents: BTreeMap::new() }
    }

    /// Reads all files again. `None`: nothing has changed since the last time.
    ///
    /// # Errors
    /// When the folder cannot be listed. A file that cannot be read is a complaint.
    pub fn read(&mut self) -> Result<Option<Reading>, FolderError> {
        let texts = read_texts(&self.path).map_err(|why| FolderError { path: self.path.clone(), why })?;
        if self.texts.as_ref() == Some(&texts) {
            return Ok(None);
        }
        let mut reading = Reading { files: texts.len(), ..Reading::default() };
        let mut documents = BTreeMap::new();
        for (file, text) in &texts {
            let parsed = text
                .as_ref()
                .map_or_else(|why| unreadable(file, why), |text| parse(file, text, &self.schemas));
            let before = self.documents.get(file).map(Vec::as_slice).unwrap_or_default();
            documents.insert(file.clone(), in_force(before, parsed, &mut reading));
        }
        self.texts = Some(texts);
        self.documents = documents;
        self.collect(&mut reading);
        Ok(Some(reading))
    }

    /// All objects; of two that claim to be the same one the first counts.
    fn collect(&self, reading: &mut Reading) {
        for document in self.documents.values().flatten() {
            match reading.objects.get(&document.key) {
                None => {
                    reading.objects.insert(document.key.clone(), document.clone());
                }
                Some(first) => reading.complaints.push(Complaint(format!(
                    "{}: {} is already defined at {}, which counts: remove one of them",
                    document.place, document.key, first.place
                ))),
            }
        }
    }
}

fn read_texts(folder: &Path) -> io::Result<Texts> {
    let mut texts = Texts::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml")) && path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            texts.insert(name, fs::read_to_string(&path).map_err(|error| error.to_string()));
        }
    }
    Ok(texts)
}

fn unreadable(file: &str, why: &str) -> Parsed {
    let complaints = vec![Complaint(format!("{file}: this file cannot be read: {why}"))];
    Parsed { broken: vec![None], complaints, ..Parsed::default() }
}

/// What is in force of a file: what it says now, and for what is broken in it what it said before.
fn in_force(before: &[Document], parsed: Parsed, reading: &mut Reading) -> Vec<Document> {
    let Parsed { documents, broken, complaints, warnings } = parsed;
    reading.complaints.extend(complaints);
    reading.warnings.extend(warnings);
    let mut force = Vec::new();
    for document in documents {
        let held = before.iter().find(|held| held.key == document.key);
        match held.and_then(|held| transition(held, &document).map(|complaint| (held, complaint))) {
            None => force.push(document),
            Some((held, complaint)) => {
                reading.complaints.push(complaint);
                force.push(held.clone());
            }
        }
    }
    let kept: Vec<Document> = before
        .iter()
        .filter(|held| force.iter().all(|document| document.key != held.key))
        .filter(|held| broken.iter().any(|key| key.as_ref().is_none_or(|key| *key == held.key)))
        .cloned()
        .collect();
    force.extend(kept);
    force
}

/// What the API server would refuse about this change (CEL rules on the old object).
fn transition(before: &Document, after: &Document) -> Option<Complaint> {
    let refused = match (&before.manifest, &after.manifest) {
        (Manifest::Pool(old), Manifest::Pool(new)) => new.validate_cel_update(old).err(),
        (Manifest::Upstream(old), Manifest::Upstream(new)) => new.validate_cel_update(old).err(),
        _ => None,
    }?;
    let faults: Vec<String> = refused.as_slice().iter().map(ToString::to_string).collect();
    Some(Complaint(format!("{}: {}: {}", after.place, after.key, faults.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(name: &str) -> String {
        format!(
            "apiVersion: postroad.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: {name}}}\nspec: {{sandbox: {{}}}}\n"
        )
    }

    fn names(reading: &Reading) -> Vec<&str> {
        reading.objects.keys().map(|key| key.name.as_str()).collect()
    }

    #[test]
    fn a_broken_edit_keeps_the_last_good_object_and_a_deletion_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        let mut folder = Folder::new(directory.path().to_owned());
        fs::write(&file, format!("{}---\n{}", upstream("a"), upstream("b"))).unwrap();
        assert_eq!(names(&folder.read().unwrap().unwrap()), ["a", "b"]);
        assert!(folder.read().unwrap().is_none(), "nothing has changed");

        fs::write(&file, upstream("b").replace("sandbox: {}", "bogus: {}")).unwrap();
        let reading = folder.read().unwrap().unwrap();
        assert_eq!(names(&reading), ["b"], "a is gone, b is broken and kept");
        assert_eq!(reading.complaints.len(), 1);

        fs::write(&file, "kind: [\n").unwrap();
        assert_eq!(names(&folder.read().unwrap().unwrap()), ["b"], "what cannot be told is kept");

        fs::remove_file(&file).unwrap();
        assert_eq!(names(&folder.read().unwrap().unwrap()), [""; 0]);
    }

    #[test]
    fn of_two_definitions_the_first_counts_and_both_places_are_told() {
        let directory = tempfile::tempdir().unwrap();
        for file in ["a.yaml", "b.yml", "c.txt"] {
            fs::write(directory.path().join(file), upstream("a")).unwrap();
        }
        let reading = Folder::new(directory.path().to_owned()).read().unwrap().unwrap();
        assert_eq!((reading.objects.len(), reading.files), (1, 2));
        let complaint = reading.complaints[0].to_string();
        assert!(
            complaint.starts_with("b.yml:1: Upstream default/a") && complaint.contains("at a.yaml:1"),
            "{complaint}"
        );
    }

    #[test]
    fn a_change_that_the_api_server_would_refuse_is_refused() {
        let pool = |queue: &str| {
            format!(
                "apiVersion: postroad.dev/v1alpha1\nkind: RelayPool\nmetadata: {{name: main}}\nspec:\n  \
                 listeners: [{{name: smtp, port: 2525}}]\n  clients: {{identities: []}}\n  \
                 routes: [{{name: all, upstreams: [{{name: a}}]}}]\n  queue: {queue}\n"
            )
        };
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        let mut folder = Folder::new(directory.path().to_owned());
        fs::write(&file, pool("{ephemeral: {}}")).unwrap();
        folder.read().unwrap();
        fs::write(&file, pool("{storage: {size: 1Gi}}")).unwrap();
        let reading = folder.read().unwrap().unwrap();
        assert!(reading.complaints[0].0.contains("queue storage cannot change"), "{:?}", reading.complaints);
        let Manifest::Pool(kept) = &reading.objects.values().next().unwrap().manifest else {
            panic!("a pool")
        };
        assert!(kept.spec.queue.ephemeral.is_some(), "the pool as it was stays in force");
    }
}
