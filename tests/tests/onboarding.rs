//! Components that join by themselves, with a token that the orchestrator keeps in a file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt as _;

use proto::capability::ComponentType;
use proto::operator::Ask;
use service::member::{self, MemberError};
use service::token::JoinToken;
use system_tests::{Installation, PATIENCE};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_each_type_is_in_a_file_and_lets_in_that_type_alone() {
    let join = tempfile::tempdir().unwrap();
    let with = |settings: &mut orchestrator::Settings| settings.join_tokens = Some(join.path().to_owned());
    let installation = Installation::with(tempfile::tempdir().unwrap(), "127.0.0.1:0", with).await;
    let read = |name: &str| std::fs::read_to_string(join.path().join(name).join("token")).unwrap().trim().to_owned();
    for name in ["repository", "pes-evaluator", "pcs-agent"] {
        let path = join.path().join(name).join("token");
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let (pcs, rep) = (ComponentType::PostureCollectionService, ComponentType::RepositoryInterface);
    let mut members = Vec::new();
    for name in ["a", "b"] {
        let member = member::start(installation.settings(pcs, name, Some(read("pcs-agent")))).await.unwrap();
        let mut assigned = member.assigned.clone();
        tokio::time::timeout(PATIENCE, assigned.wait_for(|assigned| assigned.is_active)).await.unwrap().unwrap();
        assert!(service::health::check(&installation.data.path().join(name)).is_ok());
        members.push(member);
    }
    let refused = member::start(installation.settings(rep, "c", Some(read("pcs-agent")))).await;
    assert!(matches!(refused, Err(MemberError::Refused { .. })), "{refused:?}");

    // The same ones after a restart; what an operator has revoked is not given out anew.
    let before = (read("pcs-agent"), read("repository"));
    let id = before.0.parse::<JoinToken>().unwrap().id;
    installation.ask(Ask::TokenRevoke { id }).await;
    let address = before.1.parse::<JoinToken>().unwrap().address;
    std::fs::remove_file(join.path().join("pes-evaluator").join("token")).unwrap();
    let installation = Installation::with(installation.stop().await, &address, with).await;
    assert_eq!((read("pcs-agent"), read("repository")), before);
    let evaluator = installation.settings(ComponentType::PostureEvaluationService, "e", Some(read("pes-evaluator")));
    assert!(member::start(evaluator).await.is_ok());
    let refused = member::start(installation.settings(pcs, "d", Some(before.0))).await;
    assert!(matches!(refused, Err(MemberError::Refused { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_file_with_a_token_is_waited_for_and_is_for_the_first_start_alone() {
    let data = tempfile::tempdir().unwrap();
    let file = data.path().join("token");
    let waiting = service::config::join_token(data.path(), None, Some(&file));
    let write = async { std::fs::write(&file, "muster1.x\n").unwrap() };
    // In this order: the file is not there when it is first looked for.
    let (found, ()) = tokio::join!(biased; waiting, write);
    assert_eq!(found.unwrap().as_deref(), Some("muster1.x"));
    // It is a member, or was one: whoever was put out does not come back by itself.
    std::fs::create_dir(data.path().join("identity")).unwrap();
    std::fs::write(data.path().join("identity/membership.json"), "{}").unwrap();
    assert_eq!(service::config::join_token(data.path(), None, Some(&file)).await.unwrap(), None);
    let given = service::config::join_token(data.path(), Some(&"muster1.y".to_owned()), Some(&file)).await;
    assert_eq!(given.unwrap().as_deref(), Some("muster1.y"));
}
