//! Owns the benchmarks of whole programs: the workloads that Pontoon's examples run.

use pontoon_workloads::{digits, encoder, resnet};

use super::{Probe, Setup, timed};
use crate::session::Session;

/// Steps of training between two waits.
pub(crate) const STEPS: f64 = 20.0;

/// One step of training on a minibatch; the caller waits once in [`STEPS`].
pub(crate) fn train_step<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let trainer = digits::Trainer::new(&session.device, &session.queue, 1);
    let mut trainer = trainer.map_err(|e| e.to_string())?;
    Ok(repeat(session, move || (0..STEPS as u32).for_each(|_| trainer.step())))
}

/// One forward pass of a transformer encoder, and the wait for it.
pub(crate) fn encoder_forward<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let config = if setup.scale.cpu { encoder::Config::small() } else { encoder::Config::full() };
    let network = encoder::Encoder::new(&session.device, &session.queue, config);
    let network = network.map_err(|e| e.to_string())?;
    Ok(repeat(session, move || network.forward()))
}

/// One forward pass of a ResNet-50, and the wait for it.
pub(crate) fn resnet50_forward<'a>(setup: &Setup<'a>) -> Result<Probe<'a>, String> {
    let session = setup.session;
    let config = if setup.scale.cpu { resnet::Config::reduced() } else { resnet::Config::full() };
    let network = resnet::ResNet::new(&session.device, &session.queue, config);
    let network = network.map_err(|e| e.to_string())?;
    Ok(repeat(session, move || network.forward()))
}

/// Times repetitions with a wait after each.
fn repeat<'a>(session: &'a Session, mut once: impl FnMut() + 'a) -> Probe<'a> {
    Box::new(move |count| {
        timed(|| {
            (0..count).try_for_each(|_| {
                once();
                session.wait()
            })
        })
    })
}
