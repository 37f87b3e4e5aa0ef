//! Measures native wgpu against itself under the bridge's names: every ratio should come out near 1.
//!
//! `cargo run --release -p pontoon-bench --example self_check -- [--quick] [--json] [FILTER]`

use pontoon_bench::{Options, Target};

fn main() {
    let (flags, filters): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let flag = |name| flags.iter().any(|flag| flag == name);
    let targets =
        ["native", "unix", "tcp"].map(|name| Target { name: name.to_owned(), connect: Box::new(connect) });
    let options = Options { quick: flag("--quick"), only: filters.into_iter().collect() };
    let start = std::time::Instant::now();
    let mut progress = |line: &str| eprintln!("{:6.1} s  {line}", start.elapsed().as_secs_f64());
    match pontoon_bench::run(&targets, &options, &mut progress) {
        Ok(report) if flag("--json") => println!("{}", report.to_json()),
        Ok(report) => print!("{}", report.to_table()),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
    eprintln!("{:6.1} s  done", start.elapsed().as_secs_f64());
}

fn connect() -> Result<wgpu::Instance, String> {
    Ok(wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env()))
}
