//! Which Vulkan driver serves tests and the demo: a real GPU's, or lavapipe and that visibly.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// The variable by which the Vulkan loader is told its drivers.
const VARIABLE: &str = "VK_DRIVER_FILES";

/// Where drivers' manifests lie.
const MANIFESTS: [&str; 3] = ["usr/local/share/vulkan/icd.d", "usr/share/vulkan/icd.d", "etc/vulkan/icd.d"];

/// What was found, and so what the loader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The user has chosen; nothing is changed.
    Chosen(String),
    /// A GPU's device node is there; the loader finds its driver.
    Gpu(PathBuf),
    Lavapipe(PathBuf),
    Missing,
}

impl Driver {
    pub fn find() -> Self {
        let chosen = env::var(VARIABLE).ok().filter(|value| !value.is_empty());
        Self::find_below(Path::new("/"), chosen)
    }

    fn find_below(root: &Path, chosen: Option<String>) -> Self {
        if let Some(chosen) = chosen {
            return Self::Chosen(chosen);
        }
        let nvidia = root.join("dev/nvidia0");
        let node = matching(&root.join("dev/dri"), "renderD", "");
        if let Some(node) = node.or_else(|| nvidia.exists().then_some(nvidia)) {
            return Self::Gpu(node);
        }
        MANIFESTS
            .iter()
            .find_map(|folder| matching(&root.join(folder), "lvp_icd.", ".json"))
            .map_or(Self::Missing, Self::Lavapipe)
    }

    /// One line for the user.
    pub fn sentence(&self) -> String {
        match self {
            Self::Chosen(value) => format!("{VARIABLE} is set: using {value}"),
            Self::Gpu(node) => format!("GPU found: {}", node.display()),
            Self::Lavapipe(_) => "no GPU found: using lavapipe (CPU)".to_owned(),
            Self::Missing => "no GPU found and no lavapipe either: what needs Vulkan will fail \
                 (Debian: mesa-vulkan-drivers)"
                .to_owned(),
        }
    }

    /// What to set for programs that use Vulkan.
    pub fn env(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::Lavapipe(manifest) => Some((VARIABLE, manifest)),
            _ => None,
        }
    }
}

/// The first file of `folder`, by name, with this beginning and end.
fn matching(folder: &Path, beginning: &str, end: &str) -> Option<PathBuf> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(beginning) && name.ends_with(end))
        .collect();
    names.sort();
    names.first().map(|name| folder.join(name))
}

#[cfg(test)]
mod tests {
    use pontoon_testbed::Scratch;

    use super::*;

    fn touch(root: &Path, file: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
    }

    #[test]
    fn a_gpu_or_a_choice_is_never_overridden() {
        let scratch = Scratch::new("driver").unwrap();
        let root = scratch.path();
        assert_eq!(Driver::find_below(root, None), Driver::Missing);
        touch(root, "usr/share/vulkan/icd.d/lvp_icd.x86_64.json");
        touch(root, "usr/share/vulkan/icd.d/radeon_icd.x86_64.json");
        let lavapipe = Driver::find_below(root, None);
        let manifest = root.join("usr/share/vulkan/icd.d/lvp_icd.x86_64.json");
        assert_eq!(lavapipe, Driver::Lavapipe(manifest.clone()));
        assert_eq!(lavapipe.env(), Some((VARIABLE, manifest.as_path())));
        touch(root, "dev/dri/card0");
        assert_eq!(Driver::find_below(root, None), lavapipe);
        touch(root, "dev/dri/renderD128");
        let gpu = Driver::find_below(root, None);
        assert_eq!(gpu, Driver::Gpu(root.join("dev/dri/renderD128")));
        assert_eq!(gpu.env(), None);
        let chosen = Driver::find_below(root, Some("mine.json".into()));
        assert_eq!(chosen, Driver::Chosen("mine.json".into()));
    }
}
