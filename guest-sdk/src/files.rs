//! The named input files of a task, for those that work through a list of them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::abi::DIR_IN;

/// One file under [`DIR_IN`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InputFile {
    /// As the job names it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
}

/// The files that `list` names, one a line, or all of them, sorted by name, when it names none.
///
/// With the list as the job's input, cut between lines, each shard has some of the files; without an input a single task
/// has all.
///
/// # Errors
/// When the directory cannot be read, or there is no file of a name.
pub fn files(list: &str) -> io::Result<Vec<InputFile>> {
    files_of(Path::new(DIR_IN), list)
}

/// [`files`] of a directory of the caller's.
///
/// # Errors
/// Those of [`files`].
pub fn files_of(dir: &Path, list: &str) -> io::Result<Vec<InputFile>> {
    let named = list.lines().map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned);
    let mut names: Vec<String> = named.collect();
    if names.is_empty() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
    }
    let found = |name: String| {
        let path = dir.join(&name);
        if path.is_file() {
            Ok(InputFile { name, path })
        } else {
            let missing = format!("there is no file `{name}` in {}", dir.display());
            Err(io::Error::new(io::ErrorKind::NotFound, missing))
        }
    };
    names.into_iter().map(found).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_sorted_or_those_that_are_named() {
        let dir = std::env::temp_dir().join(format!("quorate-sdk-files-{}", std::process::id()));
        fs::create_dir_all(dir.join("directory")).unwrap();
        for name in ["b", "a", "c.txt"] {
            fs::write(dir.join(name), name).unwrap();
        }
        let names =
            |list| files_of(&dir, list).map(|files| files.into_iter().map(|file| file.name).collect::<Vec<_>>());
        assert_eq!(names("").unwrap(), ["a", "b", "c.txt"]);
        assert_eq!(names("c.txt\n\na\r\n").unwrap(), ["c.txt", "a"]);
        let missing = names("d").unwrap_err();
        assert!(missing.kind() == io::ErrorKind::NotFound && missing.to_string().contains("`d`"), "{missing}");
        assert!(names("directory").is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
