//! Owns `pontoon engine install`: a known release, from its source to a place in the folder.

use std::fs;
use std::path::Path;

use super::build::Kind;
use super::catalog::{NOTE, Note};
use super::{Catalog, Installed, build, fetch};
use crate::{Error, files};

/// A source release whose digest we have seen.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    pub name: &'static str,
    pub version: &'static str,
    pub sha256: &'static str,
}

/// Releases that can be installed by their version alone; the first is the default.
pub const KNOWN: &[Release] = &[Release {
    name: "llama.cpp",
    version: "0.3.36",
    sha256: "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
}];

/// The package that carries llama.cpp's whole source, and where in it.
const PACKAGE: &str = "llama-cpp-python";
const INSIDE: &str = "vendor/llama.cpp";

/// Which release of an engine, and how it is built.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The newest that Pontoon knows, unless set.
    pub version: Option<&'a str>,
    /// The release's digest; needed for one that Pontoon does not know.
    pub sha256: Option<&'a str>,
    /// Optimise all but the arithmetic less: a fifth of the time is saved.
    pub quick: bool,
}

impl Catalog {
    /// Downloads, checks, builds and installs `name`. What is installed already is left as it is.
    /// A release that is not [`KNOWN`] needs its sha256. A version ending in `+vulkan` is built with the
    /// Vulkan back end. `line` gets progress, for people.
    ///
    /// # Errors
    /// [`Error::MissingTool`], [`Error::Install`] or [`Error::File`].
    pub fn install(
        &self,
        name: &str,
        wanted: Wanted<'_>,
        line: &mut dyn FnMut(&str),
    ) -> Result<Installed, Error> {
        let Wanted { version, sha256, quick } = wanted;
        let refused = |reason: String| Error::Install { name: name.to_owned(), reason };
        if name != "llama.cpp" {
            return Err(refused(
                "only llama.cpp is built here; install others with pip and name their Python".into(),
            ));
        }
        let version = version.unwrap_or(KNOWN[0].version);
        let (release, vulkan) = match version.strip_suffix("+vulkan") {
            Some(release) => (release, true),
            None => (version, false),
        };
        let known = KNOWN.iter().find(|known| known.name == name && known.version == release);
        let sha256 =
            sha256.or(known.map(|known| known.sha256)).map(str::to_ascii_lowercase).ok_or_else(|| {
                refused(format!(
                    "release {release} is not one that Pontoon knows; give its sha256 to use it all the same"
                ))
            })?;
        let place = self.place(name, version)?;
        if let Some(found) = self.installed(name, version) {
            line(&format!("{name} {version} is installed already"));
            return Ok(found);
        }
        build::tools()?;
        let work = self.folder.join(format!(".build-{}-{}", version.replace('+', "-"), std::process::id()));
        let made = make(self, release, &sha256, Kind { vulkan, quick }, &work, line)
            .and_then(|program| finish(&work, &program, &sha256, &place));
        let _ = fs::remove_dir_all(&work);
        made?;
        self.installed(name, version).ok_or_else(|| refused("it is not where it was put".to_owned()))
    }
}

fn make(
    catalog: &Catalog,
    release: &str,
    sha256: &str,
    kind: Kind,
    work: &Path,
    line: &mut dyn FnMut(&str),
) -> Result<std::path::PathBuf, Error> {
    fs::create_dir_all(work).map_err(Error::file(work, "created"))?;
    let file = format!("{}-{release}.tar.gz", PACKAGE.replace('-', "_"));
    let archive = work.join("source.tar.gz");
    let index = fetch::index(catalog.config.index_url.as_deref());
    line(&format!("downloading {file}"));
    let mut told = 0;
    fetch::fetch(&index, PACKAGE, &file, sha256, &archive, &mut |had, total| {
        // A line for each tenth is enough for people and for logs.
        let tenth = (had * 10).checked_div(total).unwrap_or(0);
        if tenth > told {
            told = tenth;
            line(&format!("downloading {file}: {} of {} MiB", had >> 20, total >> 20));
        }
    })?;
    line("digest is right; unpacking");
    let source = work.join("source");
    build::unpack(&archive, INSIDE, &source)?;
    line("building llama-server; this takes some ten minutes of one core");
    build::build(&source, &work.join("build"), kind, line)
}

/// Moves the program, with its note, to its place in one step.
fn finish(work: &Path, program: &Path, sha256: &str, place: &Path) -> Result<(), Error> {
    let ready = work.join("ready");
    fs::create_dir_all(&ready).map_err(Error::file(&ready, "created"))?;
    let target = ready.join("llama-server");
    fs::rename(program, &target).map_err(Error::file(&target, "moved"))?;
    let (origin, source) = ("built".to_owned(), format!("sha256:{sha256}"));
    files::write_json(&ready.join(NOTE), &Note { origin, source, program: "llama-server".to_owned() })?;
    put(&ready, place)
}

/// Renames a finished folder to where engines are looked for.
pub(super) fn put(ready: &Path, place: &Path) -> Result<(), Error> {
    let parent = place.parent().unwrap_or(place);
    fs::create_dir_all(parent).map_err(Error::file(parent, "created"))?;
    fs::rename(ready, place).map_err(Error::file(place, "put in place"))
}
