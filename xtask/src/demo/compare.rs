//! Compares the two runs of each program: results, pictures byte for byte, times.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::demo::{
    Folders,
    programs::{Report, Row},
};

/// Prints the table and fails with one sentence if anything differs.
pub fn report(rows: &[Row], folders: &Folders) -> anyhow::Result<()> {
    print_table(rows);
    let pictures = same_pictures(&folders.native, &folders.container);
    if let Ok(names) = &pictures {
        println!("   {} pictures, equal byte for byte: {}", names.len(), names.join(", "));
        println!("   {}", folders.native.display());
        println!("   {}", folders.container.display());
    }
    let differing: Vec<&str> = rows
        .iter()
        .filter(|row| row.native.results != row.container.results)
        .map(|row| row.program)
        .collect();
    ensure!(differing.is_empty(), "results differ between host and container: {}", differing.join(", "));
    pictures.map(drop)
}

fn print_table(rows: &[Row]) {
    println!("   {:8} {:>9} {:>11} {:>6}  {:9} result", "program", "host", "container", "ratio", "results");
    for row in rows {
        println!("   {}", line(row));
    }
    for adapter in adapters(rows) {
        println!("   {adapter}");
    }
}

fn line(row: &Row) -> String {
    let Row { program, native, container } = row;
    let same = match native.results == container.results {
        true => "equal",
        false => "DIFFERENT",
    };
    format!(
        "{program:8} {:>7.2} s {:>9.2} s {:>6.2}  {same:9} {}",
        native.seconds,
        container.seconds,
        container.seconds / native.seconds,
        results(native, container),
    )
}

/// One side's results if both have the same, else both.
fn results(native: &Report, container: &Report) -> String {
    let show = |report: &Report| {
        let pairs = report.results.iter();
        let pairs = pairs.map(|(name, value)| format!("{name} {}", shortened(value)));
        pairs.collect::<Vec<_>>().join(", ")
    };
    match native.results == container.results {
        true => show(native),
        false => format!("{} / {}", show(native), show(container)),
    }
}

fn shortened(value: &str) -> String {
    let value = value.trim_matches('"');
    match value.chars().count() {
        0..=20 => value.to_owned(),
        _ => value.chars().take(16).chain(['…']).collect(),
    }
}

fn adapters(rows: &[Row]) -> Vec<String> {
    let mut lines = Vec::new();
    for row in rows {
        let line = match row.native.adapter == row.container.adapter {
            true => format!("adapter, in both places: {}", row.native.adapter),
            false => format!(
                "adapter: {} on the host, {} in the container",
                row.native.adapter, row.container.adapter
            ),
        };
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// The names of the pictures if both folders hold the same ones.
fn same_pictures(native: &Path, container: &Path) -> anyhow::Result<Vec<String>> {
    let (native, container) = (pictures(native)?, pictures(container)?);
    ensure!(!native.is_empty(), "the programs left no pictures");
    let names = |pictures: &BTreeMap<String, PathBuf>| pictures.keys().cloned().collect::<Vec<_>>();
    ensure!(
        native.keys().eq(container.keys()),
        "different pictures: {} on the host, {} in the container",
        names(&native).join(", "),
        names(&container).join(", ")
    );
    for (name, path) in &native {
        let same = read(path)? == read(&container[name])?;
        ensure!(same, "pictures differ: {} and {}", path.display(), container[name].display());
    }
    Ok(names(&native))
}

fn pictures(folder: &Path) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "png") {
            let name = path.file_name().unwrap_or_default();
            found.insert(name.to_string_lossy().into_owned(), path);
        }
    }
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use pontoon_testbed::Scratch;

    use super::*;

    fn made(accuracy: &str, seconds: f64) -> Report {
        Report {
            adapter: "llvmpipe".into(),
            seconds,
            results: BTreeMap::from([("accuracy", accuracy.to_owned())]),
        }
    }

    fn row(container: Report) -> Row {
        Row { program: "digits", native: made("0.97", 2.0), container }
    }

    fn folders(scratch: &Scratch, native: &[u8], container: &[u8]) -> Folders {
        let folders = Folders {
            out: scratch.path().to_owned(),
            native: scratch.path().join("native"),
            container: scratch.path().join("container"),
        };
        for (folder, bytes) in [(&folders.native, native), (&folders.container, container)] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("scene.png"), bytes).unwrap();
            fs::write(folder.join("notes.txt"), folder.to_string_lossy().as_bytes()).unwrap();
        }
        folders
    }

    #[test]
    fn lines() {
        assert_eq!(
            line(&row(made("0.97", 3.0))),
            "digits      2.00 s      3.00 s   1.50  equal     accuracy 0.97"
        );
        assert_eq!(
            line(&row(made("0.96", 3.0))),
            "digits      2.00 s      3.00 s   1.50  DIFFERENT accuracy 0.97 / accuracy 0.96"
        );
        assert_eq!(shortened("\"0123456789abcdef0123456789\""), "0123456789abcdef…");
    }

    #[test]
    fn equal_runs_pass() {
        let scratch = Scratch::new("compare").unwrap();
        let folders = folders(&scratch, b"png", b"png");
        report(&[row(made("0.97", 3.0))], &folders).unwrap();
    }

    #[test]
    fn a_different_result_fails() {
        let scratch = Scratch::new("compare").unwrap();
        let folders = folders(&scratch, b"png", b"png");
        let error = report(&[row(made("0.96", 3.0))], &folders).unwrap_err();
        let expected = "results differ between host and container: digits";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_different_or_missing_picture_fails() {
        let scratch = Scratch::new("compare").unwrap();
        let folders = folders(&scratch, b"png", b"pnG");
        let rows = [row(made("0.97", 3.0))];
        let error = report(&rows, &folders).unwrap_err().to_string();
        assert!(error.starts_with("pictures differ: "), "{error}");
        fs::remove_file(folders.container.join("scene.png")).unwrap();
        let error = report(&rows, &folders).unwrap_err().to_string();
        assert_eq!(error, "different pictures: scene.png on the host,  in the container");
    }
}
