use ecs_bridge_model::Scenario;
use stateright::{Checker, Model};

#[test]
#[ignore]
fn explore() {
    let faults: u8 = std::env::var("FAULTS").unwrap().parse().unwrap();
    let n: usize = std::env::var("N").unwrap().parse().unwrap();
    let mut scenario = Scenario::new(n, faults);
    match std::env::var("S").unwrap_or_default().as_str() {
        "deadline" => scenario = scenario.with_deadline(2),
        "spot" => scenario = scenario.on_spot(),
        "restarts" => scenario = scenario.with_restarts(),
        "timeouts" => scenario = scenario.with_timeouts(),
        _ => {}
    }
    let start = std::time::Instant::now();
    let checker = scenario.checker().threads(2).spawn_bfs().join();
    println!("states {} unique {} depth {} in {:?}", checker.state_count(), checker.unique_state_count(), checker.max_depth(), start.elapsed());
    for (name, path) in checker.discoveries() {
        println!("BROKEN {name}");
        for (state, action) in path.into_vec() {
            println!("  {action:?}   [{}]", state.lanes.iter().map(|l| format!("{l}")).collect::<Vec<_>>().join(" | "));
        }
    }
}
