//! The contract's table, cell by cell.

mod common;
use common::*;

#[test]
fn a_new_operation_is_the_callers() {
    with_store(|world| {
        let ticket = world.claim(op("k")).new();
        assert_eq!(ticket.attempt(), 1, "{}", world.name);
        let flight = world.claim(op("k")).in_flight();
        assert_eq!(flight.request_id(), ticket.request_id());
        world.wait(ticket.complete("done")).unwrap();
        let reply = world.claim(op("k")).completed();
        assert_eq!(reply.body(), b"done");
    });
}
