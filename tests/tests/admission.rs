//! Who gets in, who stays in, and who is put out: tokens, approval, certificates that renew themselves, eviction, bans.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking, and says what it skips")]

use std::time::{Duration, Instant};

use bus::{Bus, Context};
use jiff::Timestamp;
use orchestrator::TokenScope;
use proto::capability::ComponentType;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, EndpointId};
use proto::message::{
    AdvertisedEndpoint, Assignment, CapabilityAdvertisement, CapabilityAdvertisementResponse,
    ComponentRegistrationRequest, ComponentRegistrationResponse, EndpointAssignment, Message as _,
};
use proto::operator::{Ask, ComponentState, OperatorEvent, RosterEntry, TokenView};
use proto::topic::Topic;
use service::identity::{self, Identity};
use service::member::{self, Member, MemberError};
use system_tests::{Installation, PATIENCE, baseline, eventually, verdicts};
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;

async fn with_certificates_of(seconds: i64) -> Installation {
    Installation::with_certificates_of(seconds, tempfile::tempdir().unwrap(), "127.0.0.1:0").await
}

fn identity_of(installation: &Installation, name: &str) -> Identity {
    Identity::load(&installation.data.path().join(name).join("identity")).unwrap().unwrap()
}

fn signing_request(installation: &Installation, name: &str) -> String {
    let directory = installation.data.path().join(name).join("identity");
    identity::signing_request(&identity::key(&directory).unwrap()).unwrap()
}

async fn roster(installation: &Installation) -> Vec<RosterEntry> {
    match installation.ask(Ask::Roster).await.swap_remove(0) {
        OperatorEvent::Roster(roster) => roster,
        other => panic!("{other:?}"),
    }
}

async fn tokens(installation: &Installation) -> Vec<TokenView> {
    match installation.ask(Ask::TokenList).await.swap_remove(0) {
        OperatorEvent::Tokens(tokens) => tokens,
        other => panic!("{other:?}"),
    }
}

async fn wait_until_active(member: &Member) {
    let mut assigned = member.assigned.clone();
    tokio::time::timeout(PATIENCE, assigned.wait_for(|assigned| assigned.is_active)).await.unwrap().unwrap();
}

async fn register(bus: &Bus, claimed: Option<ComponentId>, request: String) -> Result<ComponentId, Fault> {
    let request = ComponentRegistrationRequest {
        component_unique_identifier: claimed,
        component_type: PCS,
        component_name: "again".to_owned(),
        component_description: None,
        certificate_signing_request: request,
        join_proof: None,
    };
    let answer: Result<ComponentRegistrationResponse, _> =
        bus.request(&Topic::Registration, &request, Context::alone(), PATIENCE).await;
    match answer {
        Ok(answer) => Ok(answer.component_unique_identifier),
        Err(bus::RequestError::Fault(fault)) => Err(fault),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_gets_its_own_id_back_and_nobody_else_does() {
    let installation = Installation::orchestrator().await;
    let first = installation.scripted(PCS, "first").await;
    let other = installation.scripted(PCS, "other").await;
    let own = first.bus.own();
    assert_eq!(register(&first.bus, Some(own), signing_request(&installation, "first")).await.unwrap(), own);
    // Another component, with its own key and with that of the first.
    for name in ["other", "first"] {
        let stolen = register(&other.bus, Some(own), signing_request(&installation, name)).await.unwrap_err();
        assert_eq!(stolen.code, FaultCode::NotAuthorized, "{name}");
    }
    // The first, for a key that was never registered.
    let moved = register(&first.bus, Some(own), signing_request(&installation, "nobody")).await.unwrap_err();
    assert_eq!(moved.code, FaultCode::UnknownComponent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_cannot_fill_the_log_with_certificates_and_endpoints() {
    let installation = Installation::orchestrator().await;
    let member = installation.scripted(PCS, "greedy").await;
    let own = member.bus.own();
    let mut last = Ok(own);
    for _ in 0..6 {
        last = register(&member.bus, Some(own), signing_request(&installation, "greedy")).await;
    }
    assert_eq!(last.unwrap_err().code, FaultCode::Busy);
    // Every time under other names: there is an end to it.
    let up = Topic::AdminUp(own, CapabilityAdvertisement::KIND.to_owned());
    let mut refused = None;
    for round in 0..5 {
        let endpoint = installation.settings(PCS, "greedy", None).endpoints.remove(0);
        let named = |number| AdvertisedEndpoint { local_name: format!("{round}-{number}"), ..endpoint.clone() };
        let advertisement = CapabilityAdvertisement {
            capabilities: vec![],
            endpoints: (0..250).map(named).collect(),
            software_version: "test".to_owned(),
            ..CapabilityAdvertisement::default()
        };
        let answer: Result<CapabilityAdvertisementResponse, _> =
            member.bus.request(&up, &advertisement, Context::alone(), PATIENCE).await;
        if let Err(bus::RequestError::Fault(fault)) = answer {
            refused.get_or_insert(fault.code);
        }
    }
    assert_eq!(refused, Some(FaultCode::TooLarge));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_for_one_type_holds_for_its_time_and_can_be_revoked() {
    let installation = Installation::orchestrator().await;
    let refused = async |name: &str, token: String| {
        let error = member::start(installation.settings(PCS, name, Some(token))).await.unwrap_err();
        assert!(
            matches!(&error, MemberError::Refused { fault, .. } if fault.code == FaultCode::NotAuthorized),
            "{error}"
        );
        error.to_string()
    };
    let for_evaluators = refused("a", installation.token(ComponentType::PostureEvaluationService).await).await;
    let token = async |ttl| installation.handle.create_token(TokenScope::one(PCS, ttl)).await.unwrap();
    let expired = token(1).await;
    eventually("the token has expired", async || {
        tokens(&installation).await.iter().any(|view| view.state(Timestamp::now()) == "expired").then_some(())
    })
    .await;
    let expired = refused("b", expired).await;
    let revoked = token(600).await;
    let id = tokens(&installation)
        .await
        .into_iter()
        .find(|view| view.state(Timestamp::now()) == "open" && view.component_type == PCS)
        .unwrap()
        .id;
    installation.ask(Ask::TokenRevoke { id: id.clone() }).await;
    let states: Vec<&str> = tokens(&installation).await.iter().map(|view| view.state(Timestamp::now())).collect();
    assert!(states.contains(&"revoked") && states.contains(&"expired"), "{states:?}");
    let revoked = refused("c", revoked).await;
    // Whoever guesses learns nothing: the answer is the same.
    assert!(for_evaluators == expired && expired == revoked, "{expired}");
    let unknown = installation.ask(Ask::TokenRevoke { id: "none".to_owned() }).await;
    assert!(matches!(&unknown[0], OperatorEvent::Fault(fault) if fault.code == FaultCode::UnknownIdentifier));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_used_up_by_those_who_joined_and_a_lost_answer_is_given_again() {
    let installation = Installation::orchestrator().await;
    let labels = vec!["web".to_owned()];
    let scope = TokenScope { uses: 2, labels, ..TokenScope::one(PCS, 600) };
    let token = installation.handle.create_token(scope).await.unwrap();
    let first = member::start(installation.settings(PCS, "first", Some(token.clone()))).await.unwrap();
    wait_until_active(&first).await;
    first.bus.close();
    // The answer was lost, as far as the component knows: the same key asks again, and gets the same id.
    let membership = installation.data.path().join("first/identity/membership.json");
    std::fs::remove_file(membership).unwrap();
    let again = member::start(installation.settings(PCS, "first", Some(token.clone()))).await.unwrap();
    assert_eq!(again.bus.own(), first.bus.own());
    assert_eq!(tokens(&installation).await[0].uses_left, 1);
    member::start(installation.settings(PCS, "second", Some(token.clone()))).await.unwrap();
    assert_eq!(tokens(&installation).await[0].state(Timestamp::now()), "used up");
    let third = member::start(installation.settings(PCS, "third", Some(token))).await;
    assert!(matches!(third, Err(MemberError::Refused { .. })), "{third:?}");
    assert!(roster(&installation).await.iter().all(|entry| entry.labels == ["web"]));
    // A label is a target.
    let core_answer =
        installation.ask(Ask::Changes { targets: vec!["web".into()], limit: 1, is_followed: false, query: None }).await;
    assert!(!matches!(&core_answer[0], OperatorEvent::Fault(fault) if fault.code == FaultCode::TargetUnknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_approves_where_the_token_wants_it() {
    let installation = Installation::orchestrator().await;
    let scope = TokenScope { needs_approval: true, ..TokenScope::one(PCS, 600) };
    let token = installation.handle.create_token(scope).await.unwrap();
    let joining = tokio::spawn(member::start(installation.settings(PCS, "waiting", Some(token.clone()))));
    let waiting = eventually("it waits", async || {
        roster(&installation).await.into_iter().find(|entry| entry.state == ComponentState::Pending)
    })
    .await;
    assert!(!joining.is_finished());
    // One use is taken by who waits: a second stranger cannot wait with it.
    let other = member::start(installation.settings(PCS, "other", Some(token))).await;
    assert!(matches!(other, Err(MemberError::Refused { .. })), "{other:?}");
    assert_eq!(tokens(&installation).await[0].uses_left, 1);
    installation.ask(Ask::Approve { component: waiting.component }).await;
    let member = joining.await.unwrap().unwrap();
    assert_eq!(member.bus.own(), waiting.component);
    wait_until_active(&member).await;
    assert_eq!(tokens(&installation).await[0].uses_left, 0);
    let twice = installation.ask(Ask::Approve { component: waiting.component }).await;
    assert!(matches!(&twice[0], OperatorEvent::Fault(fault) if fault.code == FaultCode::TargetUnknown), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_renew_themselves_and_everything_goes_on() {
    let installation = with_certificates_of(4).await;
    installation.add_repository().await;
    installation.add_evaluator().await;
    let root = tempfile::tempdir().unwrap();
    installation.add_collector("collector", root.path()).await;
    installation.wait_for_active(3).await;
    let ids: Vec<ComponentId> = roster(&installation).await.iter().map(|entry| entry.component).collect();
    let began = Instant::now();
    let mut seen = Vec::new();
    // Every certificate that there was at the beginning, the broker's own too, has ended by then.
    eventually("each has had three certificates", async || {
        for name in ["orchestrator", "repository", "pes-evaluator", "collector"] {
            let certificate = identity_of(&installation, name).certificate_der;
            if !seen.contains(&(name, certificate.clone())) {
                seen.push((name, certificate));
            }
        }
        let count = |wanted| seen.iter().filter(|(name, _)| *name == wanted).count();
        (["orchestrator", "repository", "pes-evaluator", "collector"].into_iter().all(|name| count(name) >= 3)
            && began.elapsed() > Duration::from_secs(5))
        .then_some(())
    })
    .await;
    let events = installation.ask(Ask::Evaluate(baseline(60))).await;
    assert_eq!(verdicts(&events).len(), 62);
    // Whoever joins now sees a certificate of the broker that holds.
    installation.scripted(PCS, "late").await;
    let after: Vec<ComponentId> = roster(&installation).await.iter().map(|entry| entry.component).collect();
    assert!(ids.iter().all(|id| after.contains(id)) && after.len() == 4, "{after:?}");
    assert!(roster(&installation).await.iter().all(|entry| entry.certificate_ends.is_some()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_slept_longer_than_its_certificate_comes_back_with_its_key() {
    let installation = with_certificates_of(3).await;
    let settings = installation.settings(PCS, "laptop", Some(installation.token(PCS).await));
    let before = member::start(settings.clone()).await.unwrap();
    wait_until_active(&before).await;
    let own = before.bus.own();
    before.bus.close();
    // What it has to say waits on its disk, sealed with the certificate that runs out.
    let message = EndpointAssignment {
        assignments: vec![Assignment { collector: own, endpoints: vec![EndpointId(Uuid::nil())] }],
        aliases: None,
    };
    drop(before);
    let identity = identity_of(&installation, "laptop");
    let mut outbox = bus::outbox::Outbox::open(&installation.data.path().join("laptop/outbox")).unwrap();
    keep(&mut outbox, &identity, &message);
    drop(outbox);
    eventually("its certificate has ended", async || {
        identity.certificate.valid_at(Timestamp::now()).is_err().then_some(())
    })
    .await;
    let after = member::start(member::MemberSettings { join_token: None, ..settings }).await.unwrap();
    wait_until_active(&after).await;
    assert_eq!(after.bus.own(), own);
    assert!(identity_of(&installation, "laptop").certificate.not_after > identity.certificate.not_after);
    // It was refused for what it says, and not for who says it: the seal is a fresh one.
    eventually("the message has left", async || (after.bus.unacknowledged_count() == 0).then_some(())).await;
}

/// Leaves a durable message in an outbox, as a component does that is killed after it.
fn keep(outbox: &mut bus::outbox::Outbox, identity: &Identity, message: &EndpointAssignment) {
    let envelope = proto::envelope::Envelope {
        v: proto::envelope::ENVELOPE_VERSION,
        id: proto::id::MessageId(Uuid::now_v7()),
        kind: EndpointAssignment::KIND.to_owned(),
        from: identity.component,
        to: None,
        sent: Timestamp::now(),
        expires: None,
        in_reply_to: None,
        transaction: proto::id::TransactionId(Uuid::now_v7()),
        seq: 0,
        body: serde_json::value::to_raw_value(message).unwrap(),
    };
    let topic = Topic::AdminUp(identity.component, EndpointAssignment::KIND.to_owned());
    outbox.keep(envelope.id, &topic.to_string(), &identity.sealer().unwrap().seal(&envelope.to_bytes())).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_component_is_out_at_once_learns_why_and_joins_as_somebody_new() {
    let installation = Installation::orchestrator().await;
    let mut member = installation.scripted(PCS, "collector").await;
    let own = member.bus.own();
    let began = Instant::now();
    installation.ask(Ask::Dismiss { component: own, is_ban: false, reason: "moved to another site".to_owned() }).await;
    let ended = tokio::time::timeout(PATIENCE, async { while member.inbox.recv().await.is_some() {} }).await;
    assert!(ended.is_ok() && began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let told = member.dismissal.check().unwrap_err().to_string();
    assert!(told.contains("evicted") && told.contains("moved to another site"), "{told}");
    // Without a token it says the same at every start, and does not even ask.
    let settings = installation.settings(PCS, "collector", None);
    let again = member::start(settings.clone()).await.unwrap_err().to_string();
    assert_eq!(again, told);
    let token = Some(installation.token(PCS).await);
    let anew = member::start(member::MemberSettings { join_token: token, ..settings }).await.unwrap();
    wait_until_active(&anew).await;
    assert_ne!(anew.bus.own(), own);
    let entries = roster(&installation).await;
    let entry = entries.iter().find(|entry| entry.component == own).unwrap();
    assert_eq!((entry.state, entry.dismissal.as_deref()), (ComponentState::Evicted, Some("moved to another site")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_component_stays_out_with_another_token_and_with_another_key() {
    let installation = Installation::orchestrator().await;
    let mut member = installation.scripted(PCS, "machine").await;
    let own = member.bus.own();
    installation.ask(Ask::Dismiss { component: own, is_ban: true, reason: "lied".to_owned() }).await;
    tokio::time::timeout(PATIENCE, async { while member.inbox.recv().await.is_some() {} }).await.unwrap();
    assert!(member.dismissal.check().unwrap_err().to_string().contains("banned"));
    let fresh = async || Some(installation.token(PCS).await);
    let again = member::start(installation.settings(PCS, "machine", fresh().await)).await.unwrap_err();
    assert!(again.to_string().contains("lied"), "{again}");
    // The same key, after it has deleted what it was told.
    let identity = installation.data.path().join("machine/identity");
    for file in ["dismissal.json", "membership.json"] {
        std::fs::remove_file(identity.join(file)).unwrap();
    }
    let again = member::start(installation.settings(PCS, "machine", fresh().await)).await.unwrap_err();
    assert!(matches!(&again, MemberError::Refused { fault, .. } if fault.code == FaultCode::Banned), "{again}");
    // Another key on the same machine joins, and never shakes hands.
    std::fs::rename(&identity, installation.data.path().join("old")).unwrap();
    let other = member::start(installation.settings(PCS, "machine", fresh().await)).await.unwrap();
    let advertised = || {
        let endpoints = installation.settings(PCS, "machine", None).endpoints;
        CapabilityAdvertisement {
            capabilities: vec![],
            endpoints,
            software_version: "test".to_owned(),
            ..CapabilityAdvertisement::default()
        }
    };
    let up = Topic::AdminUp(other.bus.own(), CapabilityAdvertisement::KIND.to_owned());
    let answer: Result<CapabilityAdvertisementResponse, _> =
        other.bus.request(&up, &advertised(), Context::alone(), PATIENCE).await;
    assert!(matches!(&answer, Err(bus::RequestError::Fault(fault)) if fault.code == FaultCode::Banned), "{answer:?}");
    assert!(!other.assigned.borrow().is_active);
    installation.ask(Ask::LiftBan { component: own }).await;
    wait_until_active(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_put_out_gets_in_again_only_where_it_may_and_with_a_token_that_holds() {
    let installation = Installation::orchestrator().await;
    let fresh = async || Some(installation.token(PCS).await);
    let mut member = installation.scripted(PCS, "machine").await;
    let own = member.bus.own();
    std::fs::write(installation.data.path().join("machine/outbox/junk.msg"), "/topic\nwhat it had still to say")
        .unwrap();
    installation.ask(Ask::Dismiss { component: own, is_ban: true, reason: "lied".to_owned() }).await;
    tokio::time::timeout(PATIENCE, async { while member.inbox.recv().await.is_some() {} }).await.unwrap();
    // Evicting does not lift a ban, and lifting makes no token good that is not.
    let evicted = installation.ask(Ask::Dismiss { component: own, is_ban: false, reason: String::new() }).await;
    assert!(matches!(&evicted[0], OperatorEvent::Fault(fault) if fault.message.contains("--lift")), "{evicted:?}");
    installation.ask(Ask::LiftBan { component: own }).await;
    let used_up = fresh().await;
    member::start(installation.settings(PCS, "somebody", used_up.clone())).await.unwrap();
    let refused = member::start(installation.settings(PCS, "machine", used_up)).await.unwrap_err();
    assert!(refused.to_string().contains("lied"), "{refused}");
    let back = member::start(installation.settings(PCS, "machine", fresh().await)).await.unwrap();
    wait_until_active(&back).await;
    assert_ne!(back.bus.own(), own);
    assert_eq!(back.bus.unacknowledged_count(), 0);
    // Killed between the two moves that put the new identity in the place of the old one.
    let (place, fresh_place) = ("machine/identity", "machine/identity.new");
    let path = |name| installation.data.path().join(name);
    std::fs::rename(path(place), path(fresh_place)).unwrap();
    assert_eq!(member::start(installation.settings(PCS, "machine", None)).await.unwrap().bus.own(), back.bus.own());
    assert!(path(place).exists() && !path(fresh_place).exists());
    // Evicted while it waited: it has a key, and nothing else.
    let scope = TokenScope { needs_approval: true, ..TokenScope::one(PCS, 600) };
    let token = installation.handle.create_token(scope).await.unwrap();
    let waiting = tokio::spawn(member::start(installation.settings(PCS, "waiting", Some(token))));
    let pending = eventually("it waits", async || {
        roster(&installation).await.into_iter().find(|entry| entry.state == ComponentState::Pending)
    })
    .await;
    let component = pending.component;
    installation.ask(Ask::Dismiss { component, is_ban: false, reason: "unknown here".to_owned() }).await;
    let refused = waiting.await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("unknown here") || refused.to_string().contains("token"), "{refused}");
    let back = member::start(installation.settings(PCS, "waiting", fresh().await)).await.unwrap();
    wait_until_active(&back).await;
    assert_ne!(back.bus.own(), component);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_its_way_when_its_sender_was_put_out_comes_too_late() {
    let installation = Installation::orchestrator().await;
    let member = installation.scripted(PCS, "quick").await;
    let own = member.bus.own();
    let up = Topic::AdminUp(own, CapabilityAdvertisement::KIND.to_owned());
    let advertisement = CapabilityAdvertisement {
        capabilities: proto::capability::Capability::all_of(PCS),
        endpoints: vec![],
        software_version: "test".to_owned(),
        ..CapabilityAdvertisement::default()
    };
    for _ in 0..300 {
        member.bus.send(&up, &advertisement, Context::alone()).unwrap();
    }
    installation.ask(Ask::Dismiss { component: own, is_ban: false, reason: "flood".to_owned() }).await;
    // Something honest after it, on the same way, so that all of the flood has been seen.
    installation.scripted(PCS, "honest").await;
    let entries = roster(&installation).await;
    assert_eq!(entries.iter().find(|entry| entry.component == own).unwrap().state, ComponentState::Evicted);
}
