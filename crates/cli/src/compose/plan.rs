//! `pontoon vm compose-plan`: which GPUs the services of a Compose file would get, whole, in virtual machines.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use pontoon_passthrough::{Count, Granted, Reservation, assign};
use serde::Deserialize;
use serde_json::{Value, json};

/// A Compose file, as far as it concerns whole GPUs.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    services: BTreeMap<String, Option<Service>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Service {
    deploy: Value,
    gpus: Value,
}

pub fn run(path: &Path, as_json: bool) -> Result<ExitCode, String> {
    let text = super::check::read(path)?;
    let file: File = serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if file.services.is_empty() {
        return Err(format!("{}: it has no services", path.display()));
    }
    let (inventory, conditions) = crate::vfio::look()?;
    let services = requests(&file)?;
    let granted = assign(&inventory, &conditions, &services);
    let asks = |name: &str| services.iter().any(|(service, asked)| service == name && !asked.is_empty());
    if as_json {
        let rows: Vec<Value> = granted.iter().map(|(name, granted)| row(name, granted)).collect();
        crate::print_json(&rows)?;
    } else {
        for (name, granted) in &granted {
            println!("{name}");
            if !asks(name) {
                println!("  asks for no whole GPU (deploy.resources.reservations.devices)");
            }
            for device in &granted.devices {
                println!("  gets    {device}");
            }
            granted.why.iter().for_each(|why| println!("          {why}"));
            granted.misses.iter().for_each(|miss| println!("  MISSES  {miss}"));
        }
    }
    let misses = granted.iter().any(|(_, granted)| !granted.misses.is_empty());
    Ok(if misses { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn row(name: &str, granted: &Granted) -> Value {
    json!({ "service": name, "gets": granted.devices, "why": granted.why, "misses": granted.misses })
}

/// What each service asks for; devices by CDI are another way and left out.
fn requests(file: &File) -> Result<Vec<(String, Vec<Reservation>)>, String> {
    let one = |(name, service): (&String, &Option<Service>)| {
        let mut asked = Vec::new();
        if let Some(service) = service {
            let reserved = &service.deploy["resources"]["reservations"]["devices"];
            for entry in reserved.as_array().into_iter().flatten().filter(|entry| is_gpu(entry)) {
                asked.push(reservation(name, entry)?);
            }
            match &service.gpus {
                Value::Null => {}
                Value::String(all) if all == "all" => {
                    asked.push(Reservation { driver: None, count: Some(Count::All), ids: Vec::new() })
                }
                Value::Array(entries) => {
                    for entry in entries {
                        asked.push(reservation(name, entry)?);
                    }
                }
                other => return Err(format!("service {name}: gpus: {other} is neither all nor a list")),
            }
        }
        Ok((name.clone(), asked))
    };
    file.services.iter().map(one).collect()
}

fn is_gpu(entry: &Value) -> bool {
    let gpu = |capabilities: &Vec<Value>| capabilities.iter().any(|capability| capability == "gpu");
    entry["capabilities"].as_array().is_some_and(gpu) && entry["driver"] != "cdi"
}

fn reservation(service: &str, entry: &Value) -> Result<Reservation, String> {
    let count = match &entry["count"] {
        Value::Null => None,
        Value::Number(number) => {
            let number = number.as_u64().and_then(|number| u32::try_from(number).ok());
            Some(Count::Of(number.filter(|number| *number > 0).ok_or_else(|| {
                format!("service {service}: count {} is no number of GPUs from 1 on", entry["count"])
            })?))
        }
        Value::String(text) if text == "all" => Some(Count::All),
        other => return Err(format!("service {service}: count {other} is neither a number nor all")),
    };
    let ids = entry["device_ids"].as_array().into_iter().flatten();
    let text = |id: &Value| id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    Ok(Reservation {
        driver: entry["driver"].as_str().map(str::to_owned),
        count,
        ids: ids.map(text).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_as_compose_writes_them() {
        let text = "services:\n  a: { deploy: { resources: { reservations: { devices: [{ driver: nvidia, count: 2, capabilities: [gpu] }, { capabilities: [tpu] }, { driver: cdi, device_ids: ['pontoon.dev/gpu=all'], capabilities: [gpu] }] } } } }\n  b: { gpus: all }\n  c: { image: x }\n  d: { gpus: [{ device_ids: ['01:00.0'] }] }\n";
        let file: File = serde_saphyr::from_str(text).unwrap();
        let services = requests(&file).unwrap();
        let [a, b, c, d] = &services[..] else { panic!() };
        assert_eq!(
            a.1,
            [Reservation { driver: Some("nvidia".into()), count: Some(Count::Of(2)), ids: Vec::new() }]
        );
        assert_eq!(b.1[0].count, Some(Count::All));
        assert!(c.1.is_empty());
        assert_eq!(d.1[0].ids, ["01:00.0"]);
        for wrong in ["count: 0", "count: many", "count: -1"] {
            let text = format!("services: {{ a: {{ gpus: [{{ {wrong} }}] }} }}");
            let file: File = serde_saphyr::from_str(&text).unwrap();
            assert!(requests(&file).unwrap_err().starts_with("service a: count"), "{wrong}");
        }
    }
}
