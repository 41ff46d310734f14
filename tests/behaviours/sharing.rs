//! Many clients: they are shared by the cores of one port, and no core takes more than it may.

use std::time::Instant;

use crate::client::Client;
use crate::world::{PATIENCE, Plan, Stepped, World};

const LIVE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";

#[test]
fn r_20_the_cores_of_one_port_share_its_clients_and_each_serves_its_own() {
    const CLIENTS: usize = 64;
    let first = Stepped::new(Plan::default(), &[]);
    let second = Stepped::obeying(Plan::default().snapshot(&[]), first.address.port());
    let mut cores = [first, second];
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::new(cores[0].address))
        .collect();
    for client in &mut clients {
        client.send(LIVE);
    }
    let until = Instant::now() + PATIENCE;
    let connected = |core: &Stepped| core.core.census().0;
    while cores.iter().map(connected).sum::<usize>() < CLIENTS {
        assert!(Instant::now() < until, "somebody waits for ever");
        cores.iter_mut().for_each(Stepped::turn);
    }
    // What was accepted in the last turn is answered in the next ones.
    for _ in 0..3 {
        cores.iter_mut().for_each(Stepped::turn);
    }
    // The kernel decides by a hash of the addresses: that all fall to one of two has the chance of 2 in 2^64.
    assert!(cores.iter().all(|core| connected(core) > 0), "both serve");
    for client in &mut clients {
        assert_eq!(client.answer().body, b"ok\n");
    }
}

#[test]
fn r_05_a_client_too_many_is_turned_away_and_the_others_are_served_on() {
    let mut plan = Plan::default();
    plan.limits.connections_max = 2;
    let world = World::with(plan, &[]);
    let healthy = |client: &mut Client| {
        client.send(LIVE);
        client.answer().body == b"ok\n"
    };
    let [mut first, mut second] = [(); 2].map(|()| Client::new(world.address));
    assert!(healthy(&mut first) && healthy(&mut second));
    for _ in 0..3 {
        Client::new(world.address).assert_closed();
        assert!(healthy(&mut first) && healthy(&mut second));
    }
    // Whose place is free is somebody else's.
    second.finish();
    second.assert_closed();
    assert!(healthy(&mut Client::new(world.address)));
    assert!(healthy(&mut first));
}
