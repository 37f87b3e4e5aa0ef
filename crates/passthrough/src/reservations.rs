//! Which GPUs the services of a Compose file would get, each in a virtual machine of its own
//! (<https://docs.docker.com/reference/compose-file/deploy/#devices>).

use crate::{Address, Conditions, Device, Inventory, Plan, pick};

/// How many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Count {
    /// As many as there are.
    All,
    /// So many.
    Of(u32),
}

/// What a service asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Whose GPUs: `nvidia`, `amd`, `intel`; anybody's where nothing is said.
    pub driver: Option<String>,
    /// How many; nothing where ids are named.
    pub count: Option<Count>,
    /// Which: PCI addresses, or places in the list of GPUs, from 0.
    pub ids: Vec<String>,
}

/// What a service would get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Granted {
    /// The devices, with those that share their groups.
    pub devices: Vec<Address>,
    /// Why these.
    pub why: Vec<String>,
    /// What it would miss, and why.
    pub misses: Vec<String>,
}

/// Vendors by the names that Compose files have for their drivers.
const DRIVERS: [(&str, u16); 3] = [("nvidia", 0x10de), ("amd", 0x1002), ("intel", 0x8086)];

/// Gives GPUs to services in their order; what one has no other gets.
pub fn assign(
    inventory: &Inventory,
    conditions: &Conditions,
    services: &[(String, Vec<Reservation>)],
) -> Vec<(String, Granted)> {
    let mut given: Vec<(Address, String)> = Vec::new();
    let mut all = Vec::new();
    for (service, asked) in services {
        let mut granted = Granted::default();
        for reservation in asked {
            let mut desk = Desk { inventory, conditions, given: &mut given, service };
            desk.grant(reservation, &mut granted);
        }
        all.push((service.clone(), granted));
    }
    all
}

struct Desk<'a> {
    inventory: &'a Inventory,
    conditions: &'a Conditions,
    given: &'a mut Vec<(Address, String)>,
    service: &'a str,
}

impl Desk<'_> {
    fn grant(&mut self, reservation: &Reservation, granted: &mut Granted) {
        let vendor = match &reservation.driver {
            None => None,
            Some(name) => match DRIVERS.iter().find(|(known, _)| known == name) {
                Some((_, vendor)) => Some(*vendor),
                None => {
                    granted.misses.push(format!(
                        "driver '{name}': whole GPUs are asked for by nvidia, amd, intel, or no driver"
                    ));
                    return;
                }
            },
        };
        if !reservation.ids.is_empty() {
            if reservation.count.is_some() {
                granted.misses.push("count and device_ids exclude each other: leave one out".into());
                return;
            }
            for id in &reservation.ids {
                self.named(id, granted);
            }
            return;
        }
        let count = reservation.count.unwrap_or(Count::All);
        let mut found = 0;
        while count == Count::All || count > Count::Of(found) {
            match self.best(vendor) {
                Ok((address, why)) => {
                    self.give(address, why, granted);
                    found += 1;
                }
                // As many as there are is at least one.
                Err(_) if count == Count::All && found > 0 => return,
                Err(reasons) => {
                    granted.misses.push(match count {
                        Count::All => format!("GPUs: {reasons}"),
                        Count::Of(count) => format!("{} of {count} GPUs: {reasons}", count - found),
                    });
                    return;
                }
            }
        }
    }

    /// The best free one of a vendor.
    fn best(&self, vendor: Option<u16>) -> Result<(Address, String), String> {
        let fits = |device: &&Device| vendor.is_none_or(|vendor| device.vendor == vendor);
        let other = self.inventory.gpus().filter(|gpu| !fits(gpu)).map(|gpu| gpu.address);
        let passed: Vec<Address> = self.given.iter().map(|(address, _)| *address).chain(other).collect();
        pick(self.inventory, self.conditions, &passed).map_err(|problems| {
            let mut reasons: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let taken = self.given.iter().filter(|(address, _)| {
                self.inventory.at(*address).is_some_and(|device| device.is_gpu() && fits(&device))
            });
            reasons.extend(taken.map(|(address, service)| format!("{address} goes to {service}")));
            match reasons.is_empty() {
                true => "there is none".into(),
                false => reasons.join("; "),
            }
        })
    }

    /// One that is named.
    fn named(&mut self, id: &str, granted: &mut Granted) {
        let by_place = id.parse::<usize>().ok().and_then(|place| self.inventory.gpus().nth(place));
        let address = by_place.map(|gpu| gpu.address).or_else(|| id.parse().ok());
        let Some(address) = address else {
            granted.misses.push(format!(
                "'{id}': it is neither a PCI address nor a place in the list of `pontoon gpu list`, from 0"
            ));
            return;
        };
        if let Some((_, service)) = self.given.iter().find(|(given, _)| *given == address) {
            granted.misses.push(format!("{address} goes to {service}"));
            return;
        }
        let plan = Plan::bind(self.inventory, self.conditions, &[address], false);
        match plan.problems.is_empty() {
            true => self.give(address, "named".into(), granted),
            false => granted.misses.extend(plan.problems.iter().map(ToString::to_string)),
        }
    }

    fn give(&mut self, address: Address, why: String, granted: &mut Granted) {
        let plan = Plan::bind(self.inventory, self.conditions, &[address], false);
        for device in plan.devices {
            self.given.push((device, self.service.to_owned()));
            granted.devices.push(device);
        }
        granted.why.push(format!("{address}: {why}"));
    }
}
