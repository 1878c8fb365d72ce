//! Durable before used: the journal, the save, and what happens when the store fails.

use std::time::Duration;

use claviger_actors::store::{Expected, RecordKey, Table, TokenStore, Write};
use claviger_actors::transport::TransportError;

use crate::world::*;

#[test]
fn nothing_is_sent_before_the_intent_is_journalled() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        world.faults.fail_next_commits(1);
        assert!(matches!(call(&gateway, &alice()).await, Err(TokenError::StoreUnavailable { .. })));
        assert_eq!(world.token_requests(), 0);
        assert!(call(&gateway, &alice()).await.is_ok());
    });
}

#[test]
fn nothing_is_used_before_it_is_durable() {
    run(async {
        let world = World::new();
        let gateway = world.connected(100).await;
        pass(90.0).await;
        world.faults.delay_commits(Duration::from_secs(2));
        gateway.refresh_ahead(&alice(), &CallContext::none());
        pass(3.0).await;
        assert_eq!(world.token_requests(), 1);
        let published = gateway.connections().get(&alice()).unwrap();
        assert_eq!(access_token(&published), "access-0", "the new one is answered, and not saved yet");
        pass(2.0).await;
        assert_eq!(access_token(&gateway.connections().get(&alice()).unwrap()), "access-1");
    });
}

#[test]
fn an_answer_that_cannot_be_saved_is_kept_and_saved_later() {
    run(async {
        let world = World::new();
        let gateway = world.connected(100).await;
        pass(90.0).await;
        world.server.delay(Duration::from_secs(1));
        gateway.refresh_ahead(&alice(), &CallContext::none());
        pass(0.5).await;
        world.faults.fail_next_commits(1_000_000);
        pass(1.0).await;
        for _ in 0..5 {
            assert!(matches!(call(&gateway, &alice()).await, Err(TokenError::StoreUnavailable { .. })));
            assert_eq!(shown(&gateway, &alice()).await, ("unsaved", Reason::StoreUnavailable));
            let page = gateway.list_connections(None, None, None, 10).await.unwrap();
            assert_eq!(page.connections[0].state, "unsaved");
            assert!(
                gateway.connections().get(&alice()).unwrap().authorization(world.clock.now()).is_none(),
                "the token before it may be dead, and the new one is not durable"
            );
            let readiness = gateway.readiness().await;
            assert!(!readiness.ready && readiness.problems[0].contains("not durable"), "{readiness:?}");
            assert!(!gateway.drain(Duration::from_millis(10)).await, "there is work to wait for");
            pass(7.0).await;
        }
        world.faults.fail_next_commits(0);
        pass(6.0).await;
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
        assert_eq!(world.token_requests(), 1);
        assert!(gateway.readiness().await.ready);
        let again = world.start().await;
        assert_eq!(access_token(&call(&again, &alice()).await.unwrap()), "access-1");
    });
}

#[test]
fn a_save_whose_answer_was_lost_is_found_to_be_made() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        world.server.delay(Duration::from_secs(1));
        let calling = gateway.clone();
        let first = actix_rt::spawn(async move { call(&calling, &alice()).await });
        pass(0.5).await;
        world.faults.lose_next_answers(1);
        pass(5.0).await;
        let _ = first.await.unwrap();
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
        assert_eq!(world.token_requests(), 1);
    });
}

#[test]
fn looking_at_a_connection_changes_nothing() {
    run(async {
        let world = World::new();
        world.connected(0).await;
        let gateway = world.start().await;
        world.faults.delay_commits(Duration::from_millis(30));
        // Looked at from before the refresh until after it.
        let looking = gateway.clone();
        let looker = actix_rt::spawn(async move {
            for _ in 0..300 {
                let _ = looking.connection(&alice()).await;
                pass(0.001).await;
            }
        });
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-1");
        gateway.delete_connection(&alice()).await.unwrap();
        looker.await.unwrap();
        assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::NeverConnected));
    });
}

#[test]
fn a_refresh_cut_off_by_the_end_of_the_process_is_named_when_its_token_turns_out_dead() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        let calling = gateway.clone();
        // Its answer never comes; by then the next process has long been told.
        world.server.plan(Answer::json(200, "{}").delayed(Duration::from_secs(3600)));
        let cut_off = actix_rt::spawn(async move { call(&calling, &alice()).await });
        pass(0.04).await;
        assert_eq!(world.token_requests(), 1, "sent, not answered");
        let next = world.start().await;
        // The next process fails once before it is told.
        world.server.plan(Answer::json(500, "{}"));
        world.server.revoke();
        assert_eq!(needs_consent(&call(&next, &alice()).await), Some(Reason::InterruptedRefresh));
        drop(cut_off);
    });
}

#[test]
fn an_answer_that_was_lost_on_its_way_is_named_when_its_token_turns_out_dead() {
    run(async {
        let world = World::new();
        let gateway = world.connected(0).await;
        let lost = TransportError::Timeout { authority: "as.example".into(), after: Duration::from_secs(10) };
        world.server.plan(Answer::failed(lost));
        assert!(call(&gateway, &alice()).await.is_err());
        pass(1.0).await;
        world.server.revoke();
        assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::InterruptedRefresh));
    });
}

async fn damage(world: &World) {
    let key = RecordKey(b"person\0alice".to_vec());
    let value = Some(b"no record at all".to_vec());
    let write = Write { table: Table::Connection, key, value, expected: Expected::Anything };
    world.store.commit(vec![write]).await.unwrap();
}

#[test]
fn a_damaged_record_is_left_alone_until_an_operator_deletes_it() {
    run(async {
        let world = World::new();
        world.connected(0).await;
        damage(&world).await;
        let gateway = world.start().await;
        let answer = call(&gateway, &alice()).await;
        assert!(matches!(answer, Err(TokenError::StoreUnavailable { .. })), "{answer:?}");
        assert!(gateway.connection(&alice()).await.is_err(), "shown as what it is");
        assert_eq!(world.token_requests(), 0);
        assert!(gateway.delete_connection(&alice()).await.unwrap());
        assert_eq!(needs_consent(&call(&gateway, &alice()).await), Some(Reason::NeverConnected));
    });
}

#[test]
fn a_new_token_set_replaces_a_damaged_record() {
    run(async {
        let world = World::new();
        world.connected(0).await;
        damage(&world).await;
        let gateway = world.start().await;
        gateway.import_connection(&alice(), world.tokens(3600)).await.unwrap();
        assert_eq!(access_token(&call(&gateway, &alice()).await.unwrap()), "access-0");
    });
}

#[test]
fn an_unsaved_token_set_without_a_refresh_token_is_the_operators_to_mend() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        world.faults.fail_next_commits(1_000_000);
        let tokens = claviger_actors::protocol::token::TokenSet { refresh_token: None, ..world.tokens(3600) };
        let importing = gateway.clone();
        let import = actix_rt::spawn(async move { importing.import_connection(&alice(), tokens).await });
        pass(1.0).await;
        let view = gateway.connection(&alice()).await.unwrap().unwrap();
        let shown = serde_json::to_value(&view).unwrap();
        assert_eq!((&shown["state"], &shown["who_must_act"]), (&"unsaved".into(), &"operator".into()));
        world.faults.fail_next_commits(0);
        assert!(import.await.unwrap().is_ok());
    });
}

#[test]
fn connect_links_asked_for_in_a_loop_cost_few_writes_and_the_newest_works() {
    run(async {
        let world = World::new();
        let gateway = world.start().await;
        let before = world.faults.commits();
        let mut newest = None;
        for _ in 0..1000 {
            newest =
                Some(gateway.create_connect_link(alice(), None, ScopeSet::default()).await.unwrap().token);
        }
        assert!(world.faults.commits() - before <= 10, "{} writes", world.faults.commits() - before);
        let newest = newest.unwrap();
        assert!(gateway.open_connect_link(newest.clone(), None).await.is_ok());
        assert!(gateway.open_connect_link(newest, None).await.is_err(), "once");
        let next = gateway.create_connect_link(alice(), None, ScopeSet::default()).await.unwrap().token;
        assert!(gateway.open_connect_link(next, None).await.is_ok());
    });
}
