//! Each rule by itself.

use std::time::Duration;

use super::super::*;
use super::world::{End, World, mib, profile};

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn loading(world: &World) -> Process {
    *world.loading.keys().next().expect("a load")
}

/// A world with one model that is up and idle.
fn loaded(budget: u64, needs: &[u64]) -> (World, Vec<ModelId>) {
    let mut world = World::new(budget, Limits::default());
    let mut ids = Vec::new();
    for (id, need) in needs.iter().enumerate() {
        ids.push(world.model(id as u64, profile(*need, 1)));
    }
    (world, ids)
}

fn serve(world: &mut World, model: ModelId) -> Ticket {
    let ticket = world.arrive(model, "somebody", 10);
    while !world.serving.contains_key(&ticket) {
        if let Some(process) = world.loading.keys().next().copied() {
            world.load_done(process, None);
        } else if let Some(process) = world.leaving.keys().next().copied() {
            world.evict_done(process);
        } else {
            let next = world.scheduler.next_wake(world.now).expect("something will happen");
            world.now = next;
            world.event(Event::Tick);
        }
    }
    ticket
}

#[test]
fn one_load_serves_all_who_wait_and_survives_the_first_caller() {
    let (mut world, ids) = loaded(1000, &[100]);
    let first = world.arrive(ids[0], "a", 1);
    let second = world.arrive(ids[0], "b", 1);
    world.cancel(first);
    let process = loading(&world);
    world.load_done(process, None);
    assert_eq!(world.ends[&second], End::Granted(process));
    assert_eq!(world.ends[&first], End::Cancelled);
    assert_eq!(world.loads.len(), 1);
}

#[test]
fn a_load_goes_on_when_everybody_left() {
    let (mut world, ids) = loaded(1000, &[100]);
    let only = world.arrive(ids[0], "a", 1);
    world.cancel(only);
    let process = loading(&world);
    world.load_done(process, None);
    assert!(world.up.contains_key(&process) && world.evictions.is_empty());
}

#[test]
fn idle_models_leave_after_their_time_and_pinned_ones_never() {
    let (mut world, ids) = loaded(1000, &[100, 100]);
    let pinned = Profile { pinned: true, ..profile(100, 1) };
    world.event(Event::Model { model: ids[1], profile: pinned, reload: false });
    for id in &ids {
        let ticket = serve(&mut world, *id);
        world.finish(ticket);
    }
    world.after(seconds(299));
    assert!(world.evictions.is_empty());
    let due = world.scheduler.next_wake(world.now).unwrap();
    assert!(due <= world.now + seconds(1));
    world.after(seconds(2));
    assert_eq!(world.evictions, [(ids[0], Why::Idle)]);
    world.after(seconds(100_000));
    assert_eq!(world.evictions.len(), 1);
}

#[test]
fn a_keep_alive_of_zero_unloads_after_the_answer_and_for_ever_stays() {
    let (mut world, ids) = loaded(1000, &[100, 100]);
    let zero = world.arrive_with(ids[0], "a", 1, Some(KeepAlive::For(Duration::ZERO)));
    let process = loading(&world);
    world.load_done(process, None);
    assert!(world.evictions.is_empty(), "not while it serves");
    world.finish(zero);
    assert_eq!(world.evictions, [(ids[0], Why::Idle)]);
    let ever = world.arrive_with(ids[1], "a", 1, Some(KeepAlive::Forever));
    let process = loading(&world);
    world.load_done(process, None);
    world.finish(ever);
    world.after(seconds(1_000_000));
    assert_eq!(world.evictions.len(), 1);
}

#[test]
fn only_what_is_needed_is_evicted_and_the_least_valuable_first() {
    let (mut world, ids) = loaded(1000, &[300, 300, 300, 300]);
    for id in &ids[..3] {
        let ticket = serve(&mut world, *id);
        world.finish(ticket);
        world.after(seconds(10));
    }
    // The first was idle for longest.
    serve(&mut world, ids[3]);
    assert_eq!(world.evictions, [(ids[0], Why::Room)]);
}

#[test]
fn one_large_victim_is_better_than_it_and_a_small_one() {
    let (mut world, ids) = loaded(1000, &[100, 800, 700]);
    for id in &ids[..2] {
        let ticket = serve(&mut world, *id);
        world.finish(ticket);
        world.after(seconds(10));
    }
    serve(&mut world, ids[2]);
    assert_eq!(world.evictions, [(ids[1], Why::Room)], "the small one is idle for longer but not needed");
}

#[test]
fn what_is_dear_to_load_stays_longer() {
    let (mut world, ids) = loaded(1000, &[400, 400, 400]);
    let dear = Profile { reload: seconds(60), ..profile(400, 1) };
    world.event(Event::Model { model: ids[0], profile: dear, reload: false });
    let ticket = world.arrive(ids[0], "a", 1);
    world.now += seconds(60);
    let process = loading(&world);
    world.load_done(process, None);
    world.finish(ticket);
    let ticket = serve(&mut world, ids[1]);
    world.finish(ticket);
    world.after(seconds(20));
    serve(&mut world, ids[2]);
    assert_eq!(world.evictions, [(ids[1], Why::Room)]);
}

#[test]
fn kept_for_ever_goes_last_and_only_when_nothing_else_helps() {
    let (mut world, ids) = loaded(1000, &[400, 400, 400, 900]);
    let ever = world.arrive_with(ids[0], "a", 1, Some(KeepAlive::Forever));
    let process = loading(&world);
    world.load_done(process, None);
    world.finish(ever);
    world.after(seconds(100));
    let ticket = serve(&mut world, ids[1]);
    world.finish(ticket);
    world.after(seconds(1));
    let ticket = serve(&mut world, ids[2]);
    world.finish(ticket);
    assert_eq!(world.evictions, [(ids[1], Why::Room)]);
    world.after(seconds(1));
    serve(&mut world, ids[3]);
    assert_eq!(world.evictions.len(), 3);
}

#[test]
fn two_models_that_do_not_fit_take_turns() {
    let (mut world, ids) = loaded(1000, &[700, 700]);
    // Both have work without end: whenever one is served, its caller asks again.
    let mut served = [0u32; 2];
    let mut owner = std::collections::BTreeMap::new();
    for (at, id) in ids.iter().enumerate() {
        for caller in ["x", "y"] {
            owner.insert(world.arrive(*id, caller, 10), at);
        }
    }
    for _ in 0..20_000 {
        if let Some(process) = world.loading.keys().next().copied() {
            world.now += Duration::from_millis(100);
            world.load_done(process, None);
        } else if let Some(process) = world.leaving.keys().next().copied() {
            world.evict_done(process);
        } else if let Some(ticket) = world.serving.keys().next().copied() {
            world.now += Duration::from_millis(20);
            let at = owner[&ticket];
            served[at] += 1;
            owner.insert(world.arrive(ids[at], "x", 10), at);
            world.finish(ticket);
        } else {
            world.now = world.scheduler.next_wake(world.now).expect("someone waits");
            world.event(Event::Tick);
        }
    }
    let (few, many) = (served[0].min(served[1]), served[0].max(served[1]));
    assert!(few * 2 > many, "unfair: {served:?}");
    let changes = world.loads.len() as u32;
    assert!(many / changes >= 5, "{changes} changes for {served:?}: a turn is worth its load");
}

#[test]
fn a_busy_model_is_drained_not_killed() {
    let (mut world, ids) = loaded(1000, &[700, 700]);
    let busy = serve(&mut world, ids[0]);
    let other = world.arrive(ids[1], "b", 1);
    world.after(seconds(100));
    let late = world.arrive(ids[0], "a", 1);
    assert!(world.evictions.is_empty() && world.waiting.contains_key(&late));
    world.finish(busy);
    assert_eq!(world.evictions, [(ids[0], Why::Room)]);
    let process = *world.leaving.keys().next().unwrap();
    world.evict_done(process);
    let process = loading(&world);
    world.load_done(process, None);
    assert_eq!(world.ends[&other], End::Granted(process));
    world.settle();
    assert_eq!(world.ends[&late], End::Done);
}

#[test]
fn out_of_memory_is_tried_once_more_with_more_room() {
    let (mut world, ids) = loaded(1000, &[400, 500]);
    let ticket = serve(&mut world, ids[0]);
    world.finish(ticket);
    world.after(seconds(5));
    let asked = world.arrive(ids[1], "a", 1);
    world.load_fails(loading(&world), Failure::OutOfMemory("no memory".into()));
    assert_eq!(world.evictions, [(ids[0], Why::Room)], "half as much again does not fit beside it");
    let process = *world.leaving.keys().next().unwrap();
    world.evict_done(process);
    assert_eq!(world.loads.last(), Some(&(ids[1], true)));
    assert_eq!(world.loading[&loading(&world)].1, mib(750));
    world.load_fails(loading(&world), Failure::OutOfMemory("no memory".into()));
    assert!(matches!(&world.ends[&asked], End::Rejected(Rejection::LoadFailed { .. })));
    assert_eq!(world.loads.len(), 3, "and not a third time");
}

#[test]
fn a_broken_model_is_refused_for_a_while_and_then_tried_again() {
    let (mut world, ids) = loaded(1000, &[100]);
    world.arrive(ids[0], "a", 1);
    world.load_fails(loading(&world), Failure::Other("damaged".into()));
    let again = world.arrive(ids[0], "a", 1);
    assert!(
        matches!(&world.ends[&again], End::Rejected(Rejection::LoadFailed { reason, .. }) if reason == "damaged")
    );
    assert_eq!(world.loads.len(), 1);
    world.after(seconds(2));
    world.arrive(ids[0], "a", 1);
    assert_eq!(world.loads.len(), 2);
}

#[test]
fn an_engine_that_dies_is_started_again_and_in_the_end_given_up() {
    let (mut world, ids) = loaded(1000, &[100]);
    let mut asked = Vec::new();
    for death in 1..=4 {
        let ticket = world.arrive(ids[0], "a", 1);
        let waits = world.arrive(ids[0], "b", 1);
        asked.push((ticket, waits));
        while world.loading.is_empty() && world.up.is_empty() {
            world.now = world.scheduler.next_wake(world.now).expect("a restart is due");
            world.event(Event::Tick);
        }
        if let Some(process) = world.loading.keys().next().copied() {
            world.load_done(process, None);
        }
        let process = *world.up.keys().next().unwrap();
        world.dies(process);
        assert_eq!(
            world.loads.len(),
            death + usize::from(death == 1),
            "restarted at once only the first time"
        );
    }
    assert!(world.waiting.is_empty(), "after four deaths those who wait are told");
    assert!(world.ends.values().any(|end| matches!(end, End::Rejected(Rejection::LoadFailed { .. }))));
}

#[test]
fn too_big_for_the_budget_or_beside_what_is_pinned_is_said_at_once() {
    let (mut world, ids) = loaded(1000, &[2000, 600, 500]);
    let huge = world.arrive(ids[0], "a", 1);
    assert!(matches!(&world.ends[&huge], End::Rejected(Rejection::TooBig { .. })));
    let pinned = Profile { pinned: true, ..profile(600, 1) };
    world.event(Event::Model { model: ids[1], profile: pinned, reload: false });
    let ticket = serve(&mut world, ids[1]);
    world.finish(ticket);
    let beside = world.arrive(ids[2], "a", 1);
    assert!(matches!(&world.ends[&beside], End::Rejected(Rejection::Pinned { .. })));
}

#[test]
fn the_queue_is_bounded_as_a_whole_and_for_each_caller() {
    let limits = Limits { queued: 5, queued_per_caller: 3, ..Limits::default() };
    let mut world = World::new(1000, limits);
    let model = world.model(0, profile(100, 1));
    for _ in 0..3 {
        world.arrive(model, "greedy", 1);
    }
    let fourth = world.arrive(model, "greedy", 1);
    let full = |end: &End| matches!(end, End::Rejected(Rejection::QueueFull { retry_after }) if *retry_after >= seconds(1));
    assert!(full(&world.ends[&fourth]));
    world.arrive(model, "b", 1);
    world.arrive(model, "c", 1);
    let sixth = world.arrive(model, "d", 1);
    assert!(full(&world.ends[&sixth]));
}

#[test]
fn who_leaves_the_queue_may_come_back() {
    let limits = Limits { queued: 5, queued_per_caller: 3, ..Limits::default() };
    let mut world = World::new(1000, limits);
    let model = world.model(0, profile(100, 1));
    for _ in 0..4 {
        let tickets: Vec<Ticket> = (0..3).map(|_| world.arrive(model, "restless", 1)).collect();
        assert!(tickets.iter().all(|ticket| world.waiting.contains_key(ticket)));
        tickets.into_iter().for_each(|ticket| world.cancel(ticket));
    }
}

#[test]
fn absence_earns_nothing() {
    let (mut world, ids) = loaded(1000, &[100]);
    let mut served = serve(&mut world, ids[0]);
    // Somebody is served again and again, with never a pause in which accounts would be closed.
    for _ in 0..50 {
        let next = world.arrive(ids[0], "somebody", 10);
        world.finish(served);
        served = next;
    }
    let mut newcomers = Vec::new();
    for _ in 0..20 {
        world.arrive(ids[0], "somebody", 10);
        newcomers.push(world.arrive(ids[0], "newcomer", 10));
    }
    let before = world.grants.len();
    for _ in 0..20 {
        world.finish(served);
        served = *world.grants.last().expect("a grant");
    }
    let theirs = world.grants[before..].iter().filter(|ticket| newcomers.contains(ticket)).count();
    assert!((8..=12).contains(&theirs), "{theirs} of 20 turns");
}

#[test]
fn a_model_that_is_pinned_while_it_drains_stays() {
    let (mut world, ids) = loaded(1000, &[700, 700]);
    let busy = serve(&mut world, ids[0]);
    let other = world.arrive(ids[1], "b", 1);
    world.after(seconds(100));
    let pinned = Profile { pinned: true, ..profile(700, 1) };
    world.profiles.insert(ids[0], pinned);
    world.event(Event::Model { model: ids[0], profile: pinned, reload: false });
    world.finish(busy);
    assert!(world.evictions.is_empty());
    assert!(matches!(&world.ends[&other], End::Rejected(Rejection::Pinned { .. })));
}

#[test]
fn new_settings_take_a_new_process_after_the_present_answers() {
    let (mut world, ids) = loaded(1000, &[100]);
    let ticket = serve(&mut world, ids[0]);
    world.event(Event::Model { model: ids[0], profile: profile(200, 1), reload: true });
    let waits = world.arrive(ids[0], "b", 1);
    assert!(world.evictions.is_empty());
    world.finish(ticket);
    assert_eq!(world.evictions, [(ids[0], Why::Settings)]);
    world.settle();
    assert_eq!(world.ends[&waits], End::Done);
    assert_eq!(world.loads.len(), 2);
}

#[test]
fn positions_are_those_in_which_turns_are_given() {
    let (mut world, ids) = loaded(1000, &[100]);
    for _ in 0..3 {
        world.arrive(ids[0], "greedy", 1000);
    }
    for _ in 0..2 {
        world.arrive(ids[0], "modest", 10);
    }
    let mut told: Vec<(usize, Ticket)> =
        world.scheduler.queue(world.now).into_iter().map(|place| (place.position, place.ticket)).collect();
    told.sort();
    world.settle();
    let told: Vec<Ticket> = told.into_iter().map(|(_, ticket)| ticket).collect();
    assert_eq!(told, world.grants);
}

#[test]
fn draining_answers_all_who_wait_and_ends_what_is_idle() {
    let (mut world, ids) = loaded(1000, &[100, 100]);
    let busy = serve(&mut world, ids[0]);
    let waits = world.arrive(ids[0], "b", 1);
    world.event(Event::Drain);
    assert_eq!(world.ends[&waits], End::Rejected(Rejection::Draining));
    let late = world.arrive(ids[1], "b", 1);
    assert_eq!(world.ends[&late], End::Rejected(Rejection::Draining));
    assert!(world.evictions.is_empty());
    world.finish(busy);
    assert_eq!(world.evictions.len(), 1);
}

#[test]
fn a_smaller_model_does_not_overtake_one_that_waits_for_room() {
    let (mut world, ids) = loaded(1000, &[600, 900, 300]);
    let busy = serve(&mut world, ids[0]);
    let large = world.arrive(ids[1], "a", 1);
    let small = world.arrive(ids[2], "b", 1);
    assert_eq!(world.loads.len(), 1, "the small one would fit, but then the large one would wait for it too");
    world.finish(busy);
    world.settle();
    let order = |ticket| world.grants.iter().position(|granted| *granted == ticket).unwrap();
    assert!(order(large) < order(small));
}
