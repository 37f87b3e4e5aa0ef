//! A confined process cannot get out, and can still do its work.
//!
//! Every attempt runs in processes of its own (this program again): one without a sandbox, which
//! shows that the attempt works, and one for each way of being confined, which must refuse it.

#[cfg(target_os = "linux")]
mod attempts;
#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod parent;
#[cfg(target_os = "linux")]
mod raw;
#[cfg(target_os = "linux")]
mod scene;
#[cfg(target_os = "linux")]
mod work;

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    match std::env::var(child::TASK) {
        Ok(task) => child::main(&task),
        Err(_) => parent::main(),
    }
}
