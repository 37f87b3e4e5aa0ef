//! A Mac's GPUs, as `system_profiler -json SPDisplaysDataType` lists them. Never run on a Mac: the form is that of the
//! listings that people publish in their programs' tests (Apple documents none).

use serde::{Deserialize, Serialize};

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MacGpu {
    /// Its maker.
    pub vendor: String,
    /// What it is called.
    pub model: String,
    /// Its memory, where the listing tells; Apple's own GPUs use the machine's.
    pub memory: Option<String>,
    /// `available`, and which displays it drives: they do not keep others from it.
    pub status: String,
}

#[derive(Deserialize)]
struct Listing {
    #[serde(rename = "SPDisplaysDataType", default)]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "_name", default)]
    name: String,
    #[serde(rename = "sppci_model")]
    model: Option<String>,
    #[serde(rename = "spdisplays_vendor", default)]
    vendor: String,
    #[serde(rename = "spdisplays_vram")]
    own: Option<String>,
    #[serde(rename = "spdisplays_vram_shared")]
    shared: Option<String>,
    /// At most so much of the machine's.
    #[serde(rename = "_spdisplays_vram")]
    dynamic: Option<String>,
    #[serde(rename = "spdisplays_ndrvs", default)]
    displays: Vec<Display>,
}

#[derive(Deserialize)]
struct Display {
    #[serde(rename = "_name", default)]
    name: String,
}

/// Reads a listing.
///
/// # Errors
/// What is wrong with it.
pub fn mac_gpus(listing: &[u8]) -> Result<Vec<MacGpu>, serde_json::Error> {
    let listing: Listing = serde_json::from_slice(listing)?;
    let gpu = |entry: Entry| {
        let displays: Vec<String> = entry.displays.into_iter().map(|display| display.name).collect();
        MacGpu {
            vendor: vendor(&entry.vendor),
            model: entry.model.unwrap_or(entry.name),
            memory: entry.own.or(entry.shared).or(entry.dynamic),
            status: match displays.is_empty() {
                true => "available".into(),
                false => format!("available, drives {}", displays.join(", ")),
            },
        }
    };
    Ok(listing.entries.into_iter().map(gpu).collect())
}

/// A maker's name: `sppci_vendor_Apple`, `sppci_vendor_intel`, `AMD (0x1002)`.
fn vendor(text: &str) -> String {
    let name = text.trim_start_matches("sppci_vendor_");
    let name = name.split(" (").next().unwrap_or_default();
    let known =
        ["Apple", "AMD", "Intel", "NVIDIA"].into_iter().find(|known| known.eq_ignore_ascii_case(name));
    known.unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read() {
        let listing = br#"{"SPDisplaysDataType": [
            {"_name": "Apple M1 Pro", "spdisplays_mtlgpufamilysupport": "spdisplays_metal3",
             "spdisplays_vendor": "sppci_vendor_Apple", "sppci_bus": "spdisplays_builtin", "sppci_cores": "16",
             "sppci_device_type": "spdisplays_gpu", "sppci_model": "Apple M1 Pro", "spdisplays_ndrvs": [
                {"_name": "Color LCD", "_spdisplays_pixels": "3456 x 2234", "spdisplays_main": "spdisplays_yes"},
                {"_name": "Sidecar Display", "spdisplays_virtualdevice": "spdisplays_yes"}]},
            {"_name": "Intel UHD Graphics 630", "_spdisplays_vram": "1536 MB", "spdisplays_vendor": "sppci_vendor_intel",
             "spdisplays_metalfamily": "spdisplays_mtlgpufamilymac2"},
            {"_name": "kHW_AMDRadeonPro5500MItem", "spdisplays_vendor": "AMD (0x1002)", "sppci_model": "AMD Radeon Pro 5500M",
             "spdisplays_vram": "4 GB"},
            {"_name": "spdisplays_display", "spdisplays_device-id": "0x1111"}]}"#;
        let gpus = mac_gpus(listing).unwrap();
        let rows: Vec<_> =
            gpus.iter().map(|gpu| (&*gpu.vendor, &*gpu.model, gpu.memory.as_deref(), &*gpu.status)).collect();
        assert_eq!(
            rows,
            [
                ("Apple", "Apple M1 Pro", None, "available, drives Color LCD, Sidecar Display"),
                ("Intel", "Intel UHD Graphics 630", Some("1536 MB"), "available"),
                ("AMD", "AMD Radeon Pro 5500M", Some("4 GB"), "available"),
                ("", "spdisplays_display", None, "available"),
            ]
        );
        assert!(mac_gpus(b"no").is_err());
    }
}
