//! Trains the digits network on a real adapter.

mod common;

use pontoon_workloads::digits::{Accuracy, Trainer};

fn train(device: &wgpu::Device, queue: &wgpu::Queue, epochs: u32) -> (f32, Accuracy) {
    let mut trainer = Trainer::new(device, queue, 7).unwrap();
    for _ in 0..epochs * trainer.steps_per_epoch() {
        trainer.step();
    }
    (trainer.loss().unwrap(), trainer.test_accuracy().unwrap())
}

#[test]
fn reaches_95_percent_and_repeats_itself_to_the_bit() {
    let (_, device, queue) = common::open();
    let (loss, accuracy) = train(&device, &queue, 15);
    assert!(accuracy.fraction() >= 0.95, "{accuracy:?}, loss {loss}");
    let (again, same) = train(&device, &queue, 15);
    assert_eq!(loss.to_bits(), again.to_bits());
    assert_eq!(accuracy, same);
}

#[test]
fn an_untrained_network_guesses() {
    let (_, device, queue) = common::open();
    let trainer = Trainer::new(&device, &queue, 7).unwrap();
    let accuracy = trainer.test_accuracy().unwrap();
    assert!(accuracy.fraction() < 0.3, "{accuracy:?}");
}
