//! Holds the two networks on a real adapter against their CPU references.

mod common;

use std::time::Instant;

use pontoon_workloads::{encoder, resnet};

/// The largest difference, relative to the largest value where that is above 1.
fn worst(ours: &[f32], reference: &[f32]) -> f32 {
    assert_eq!(ours.len(), reference.len());
    assert!(reference.iter().all(|x| x.is_finite()));
    let top = reference.iter().fold(1.0_f32, |top, x| top.max(x.abs()));
    let differences = ours.iter().zip(reference).map(|(a, b)| (a - b).abs());
    let largest = differences.fold(0.0, |a: f32, b| if b > a || b.is_nan() { b } else { a });
    largest / top
}

#[test]
fn encoder_gives_what_the_reference_gives() {
    let (_, device, queue) = common::open();
    // Sizes that fill no tile.
    let odd = encoder::Config { sequence: 37, width: 60, heads: 3, inner: 90, ..encoder::Config::small() };
    for config in [odd, encoder::Config::small()] {
        let encoder = encoder::Encoder::new(&device, &queue, config).unwrap();
        encoder.forward();
        let output = encoder.read_output().unwrap();
        let difference = worst(&output, &encoder::reference::forward(&config));
        assert!(difference < 1e-3, "{config:?}: off by {difference}");
        let start = Instant::now();
        encoder.forward();
        assert_eq!(encoder.read_output().unwrap(), output);
        println!("encoder: off by {difference:.1e}, {:?} a pass", start.elapsed());
    }
}

#[test]
fn resnet_gives_what_the_reference_gives() {
    let (_, device, queue) = common::open();
    let odd = resnet::Config { image: 45, batch: 2, width_divisor: 16, classes: 7, seed: 3 };
    for config in [odd, resnet::Config::reduced()] {
        let network = resnet::ResNet::new(&device, &queue, config).unwrap();
        network.forward();
        let output = network.read_output().unwrap();
        let difference = worst(&output, &resnet::reference::forward(&config));
        assert!(difference < 1e-3, "{config:?}: off by {difference}");
        let start = Instant::now();
        network.forward();
        assert_eq!(network.read_output().unwrap(), output);
        println!("resnet: off by {difference:.1e}, {:?} a pass", start.elapsed());
    }
}

#[test]
fn a_new_input_changes_the_output_and_the_old_one_brings_it_back() {
    let (_, device, queue) = common::open();
    let config = encoder::Config::small();
    let encoder = encoder::Encoder::new(&device, &queue, config).unwrap();
    encoder.forward();
    let first = encoder.read_output().unwrap();
    let input = encoder::Weights::new(&config).input().to_vec();
    let negated: Vec<f32> = input.iter().map(|x| -x).collect();
    encoder.set_input(&negated).unwrap();
    encoder.forward();
    assert_ne!(encoder.read_output().unwrap(), first);
    encoder.set_input(&input).unwrap();
    encoder.forward();
    assert_eq!(encoder.read_output().unwrap(), first);
}

#[test]
fn sizes_that_make_no_network_are_refused_in_words() {
    let (_, device, queue) = common::open();
    let uneven = encoder::Config { heads: 5, ..encoder::Config::small() };
    let error = encoder::Encoder::new(&device, &queue, uneven).err().unwrap();
    let expected = "width is 128, but it must be a multiple of the heads";
    assert_eq!(error.to_string(), expected);
    let thin = resnet::Config { width_divisor: 3, ..resnet::Config::reduced() };
    let error = resnet::ResNet::new(&device, &queue, thin).err().unwrap();
    let expected = "width_divisor is 3, but it must be 1, 2, 4, 8 or 16";
    assert_eq!(error.to_string(), expected);
}
