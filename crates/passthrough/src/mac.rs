//! A Mac's GPUs, as `system_profiler -json SPDisplaysDataType` lists them. Never run on a Mac: the form is that of the
//! listings that Apple's users publish.

use serde::Deserialize;

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacGpu {
    /// Its maker.
    pub vendor: String,
    /// What it is called.
    pub model: String,
    /// Memory of its own, where it has some.
    pub memory: Option<String>,
    /// `available`, or which displays it drives.
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
    memory: Option<String>,
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
        let displays: Vec<String> =
            entry.displays.into_iter().map(|display| format!("display {}", display.name)).collect();
        // `sppci_vendor_Apple`, or `AMD (0x1002)`.
        let vendor = entry.vendor.trim_start_matches("sppci_vendor_");
        MacGpu {
            vendor: vendor.split(" (").next().unwrap_or_default().to_owned(),
            model: entry.model.unwrap_or(entry.name),
            memory: entry.memory,
            status: match displays.is_empty() {
                true => "available".into(),
                false => format!("in-use by {}", displays.join(", ")),
            },
        }
    };
    Ok(listing.entries.into_iter().map(gpu).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read() {
        let listing = br#"{"SPDisplaysDataType": [
            {"_name": "Apple M1 Pro", "spdisplays_vendor": "sppci_vendor_Apple", "sppci_model": "Apple M1 Pro",
             "sppci_cores": "16", "spdisplays_ndrvs": [{"_name": "Color LCD"}]},
            {"_name": "kHW_AMDRadeonPro5500MItem", "spdisplays_vendor": "AMD (0x1002)", "sppci_model": "AMD Radeon Pro 5500M",
             "spdisplays_vram": "4 GB"}]}"#;
        let gpus = mac_gpus(listing).unwrap();
        let rows: Vec<_> =
            gpus.iter().map(|gpu| (&*gpu.vendor, &*gpu.model, gpu.memory.as_deref(), &*gpu.status)).collect();
        assert_eq!(
            rows,
            [
                ("Apple", "Apple M1 Pro", None, "in-use by display Color LCD"),
                ("AMD", "AMD Radeon Pro 5500M", Some("4 GB"), "available"),
            ]
        );
        assert!(mac_gpus(b"no").is_err());
    }
}
