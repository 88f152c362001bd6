//! A stranger against the listener: it has reached the port, has no certificate, and says what it likes. What it may do
//! is to register, with a token; everything that it tries here is refused, counted, and changes nothing.
//!
//! | threat | test |
//! |---|---|
//! | a token that is guessed, or a proof that is not a token's | `a_token_that_is_guessed_lets_nobody_in_and_tells_nothing` |
//! | a proof that was recorded | `a_proof_holds_for_the_request_that_it_was_made_for_and_no_other` |
//! | a registration that was recorded | `a_registration_that_was_recorded_gives_its_sender_nothing` |
//! | a token that is expired, revoked, used up, for another type | `admission`: `a_token_is_for_one_type_holds_for_its_time_and_can_be_revoked`, `a_token_is_used_up_by_those_who_joined_and_a_lost_answer_is_given_again` |
//! | a signing request that asks for more | `a_signing_request_gets_what_the_ca_says_and_nothing_that_it_asks_for` |
//! | somebody else's name, key or certificate | `nobody_comes_back_as_somebody_else`, `a_certificate_that_is_public_seals_nothing_without_its_key` |
//! | another stranger's connection | `a_client_id_is_one_strangers_at_a_time_and_its_answer_reaches_nobody_else` |
//! | messages that no stranger may send | `a_stranger_says_nothing_but_that_it_wants_to_join` |
//! | flooding | `a_stranger_registers_a_few_times_and_in_few_bytes`, and `attacks_network` |
//! | topics of others | `isolation`: `a_stranger_reaches_the_registration_topics_and_nothing_else` |

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bus::Trust;
use bus::certificate::Certificate;
use jiff::Timestamp;
use orchestrator::TokenScope;
use proto::capability::ComponentType;
use proto::envelope::Envelope;
use proto::fault::{Fault, FaultCode};
use proto::id::{ComponentId, MessageId};
use proto::message::{
    Ack, ComponentRegistrationRequest, ComponentRegistrationResponse, HealthCheckResponse, JoinProof, Message, Phase,
    StatusNotification, Success,
};
use proto::operator::{Ask, OperatorEvent};
use proto::seal::Sealer;
use proto::topic::Topic;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType};
use service::identity::{self, certificate_der};
use service::token::JoinToken;
use system_tests::attack::{envelope, is_ended_at_once, is_served, sealed};
use system_tests::raw::{Client, Connect, Publish, Version, kind, length, packet, reason};
use system_tests::{Installation, eventually};
use uuid::Uuid;

const PCS: ComponentType = ComponentType::PostureCollectionService;

/// A connection without a certificate, and a key.
struct Stranger {
    own: ComponentId,
    key: KeyPair,
    client: Client,
    fingerprint: String,
}

fn fresh_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).unwrap()
}

impl Stranger {
    async fn connect(installation: &Installation) -> Self {
        let (own, fingerprint) = (ComponentId(Uuid::new_v4()), installation.ca_fingerprint());
        let address = installation.address().await;
        let mut client = Client::stranger(&address, &fingerprint, Version::V5).await.unwrap();
        assert_eq!(client.connect(&Connect::of(own)).await, Some(0));
        assert_eq!(client.subscribe(&[&Topic::RegistrationAnswer(own).to_string()]).await, Some(vec![1]));
        Self { own, key: fresh_key(), client, fingerprint }
    }

    /// A registration with nothing wrong in it but that no token is behind it.
    fn request(&self) -> ComponentRegistrationRequest {
        ComponentRegistrationRequest {
            component_unique_identifier: None,
            component_type: PCS,
            component_name: "stranger".to_owned(),
            component_description: None,
            certificate_signing_request: identity::signing_request(&self.key).unwrap(),
            join_proof: None,
        }
    }

    fn sealed(&self, envelope: &Envelope) -> Vec<u8> {
        Sealer::with_bare_key(self.key.serialized_der()).unwrap().seal(&envelope.to_bytes())
    }

    async fn register(
        &mut self,
        request: &ComponentRegistrationRequest,
    ) -> Result<ComponentRegistrationResponse, Fault> {
        let question = envelope(self.own, request);
        let message = self.sealed(&question);
        assert_eq!(self.client.publish(Publish::of(Topic::Registration, message)).await, Some(0));
        self.answer(question.id).await
    }

    async fn answer(&mut self, to: MessageId) -> Result<ComponentRegistrationResponse, Fault> {
        let delivered = self.client.delivery().await.expect("an answer");
        let trust = Trust::pinned(vec![self.fingerprint.clone()]);
        let answer = trust.open(&delivered.topic, &delivered.payload, self.own, Timestamp::now()).unwrap();
        assert_eq!(answer.envelope().in_reply_to, Some(to));
        if answer.envelope().kind == Fault::KIND {
            return Err(answer.envelope().decode().unwrap());
        }
        Ok(answer.envelope().decode().unwrap())
    }
}

async fn join_token(installation: &Installation) -> JoinToken {
    installation.token(PCS).await.parse().unwrap()
}

async fn uses_left(installation: &Installation, token: &JoinToken) -> u32 {
    match installation.ask(Ask::TokenList).await.swap_remove(0) {
        OperatorEvent::Tokens(tokens) => tokens.iter().find(|view| view.id == token.id).unwrap().uses_left,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_guessed_lets_nobody_in_and_tells_nothing() {
    let installation = Installation::orchestrator().await;
    let token = join_token(&installation).await;
    let guesses = |request: &str| {
        let right = token.proof(request);
        let with = |change: &dyn Fn(&mut JoinProof)| {
            let mut proof = right.clone();
            change(&mut proof);
            proof
        };
        let wrong_secret = JoinToken { secret: Uuid::new_v4().simple().to_string(), ..token.clone() };
        let no_secret = JoinToken { secret: String::new(), ..token.clone() };
        vec![
            wrong_secret.proof(request),
            no_secret.proof(request),
            with(&|proof| proof.mac.clear()),
            with(&|proof| proof.mac.truncate(20)),
            with(&|proof| proof.mac.push('A')),
            with(&|proof| proof.mac = proof.mac.to_lowercase()),
            with(&|proof| proof.mac = "A".repeat(43)),
            with(&|proof| proof.token_id = Uuid::new_v4().simple().to_string()),
            with(&|proof| proof.token_id.clear()),
            with(&|proof| proof.token_id = "' OR '1'='1".to_owned()),
            with(&|proof| proof.token_id = "%".to_owned()),
            with(&|proof| proof.token_id.push('\0')),
        ]
    };
    let mut stranger = Stranger::connect(&installation).await;
    let guesses = guesses(&stranger.request().certificate_signing_request);
    let refused = installation.refused(FaultCode::NotAuthorized).await;
    let mut told = Vec::new();
    for (number, guess) in guesses.iter().enumerate() {
        if number > 0 && number % 4 == 0 {
            let Stranger { key, .. } = stranger;
            stranger = Stranger { key, ..Stranger::connect(&installation).await };
        }
        let request = ComponentRegistrationRequest { join_proof: Some(guess.clone()), ..stranger.request() };
        told.push(stranger.register(&request).await.unwrap_err());
    }
    // Whatever is wrong, the answer is the same: nobody learns which tokens there are.
    assert!(told.iter().all(|fault| *fault == told[0] && fault.code == FaultCode::NotAuthorized), "{told:?}");
    assert_eq!(installation.refused(FaultCode::NotAuthorized).await, refused + guesses.len() as u64);
    assert_eq!(uses_left(&installation, &token).await, 1);
    assert!(installation.roster().await.is_empty());
    // Without any proof it is told that it needs one.
    assert_eq!(stranger.register(&stranger.request()).await.unwrap_err().code, FaultCode::NotAuthorized);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_holds_for_the_request_that_it_was_made_for_and_no_other() {
    let installation = Installation::orchestrator().await;
    let token = join_token(&installation).await;
    // The proof and the request of somebody honest, as whoever read along has them.
    let honest = Stranger::connect(&installation).await;
    let recorded = honest.request();
    let proof = Some(token.proof(&recorded.certificate_signing_request));
    assert!(
        !serde_json::to_string(&ComponentRegistrationRequest { join_proof: proof.clone(), ..recorded.clone() })
            .unwrap()
            .contains(&token.secret)
    );
    let mut thief = Stranger::connect(&installation).await;
    // For its own key; for the honest one's, which it does not have; and for both, one behind the other.
    let own = thief.request().certificate_signing_request;
    let theirs = recorded.certificate_signing_request.clone();
    for certificate_signing_request in [own.clone(), theirs.clone(), format!("{own}{theirs}"), format!("{theirs}{own}")]
    {
        let join_proof = proof.clone();
        let request = ComponentRegistrationRequest { certificate_signing_request, join_proof, ..recorded.clone() };
        let fault = thief.register(&request).await.unwrap_err();
        assert_eq!(fault.code, FaultCode::NotAuthorized, "{fault}");
    }
    assert_eq!((uses_left(&installation, &token).await, installation.roster().await.len()), (1, 0));
    // Whom it was made for gets in with it.
    let mut honest = Stranger { key: honest.key, ..Stranger::connect(&installation).await };
    honest.register(&ComponentRegistrationRequest { join_proof: proof, ..recorded }).await.unwrap();
    assert_eq!((uses_left(&installation, &token).await, installation.roster().await.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_that_was_recorded_gives_its_sender_nothing() {
    let installation = Installation::orchestrator().await;
    let token = join_token(&installation).await;
    let mut honest = Stranger::connect(&installation).await;
    let request = honest.request();
    let join_proof = Some(token.proof(&request.certificate_signing_request));
    let question = envelope(honest.own, &ComponentRegistrationRequest { join_proof, ..request });
    let recorded = honest.sealed(&question);
    let publish = Publish::of(Topic::Registration, recorded);
    assert_eq!(honest.client.publish(publish.clone()).await, Some(0));
    let joined = honest.answer(question.id).await.unwrap().component_unique_identifier;
    let replayed = installation.refused(FaultCode::Replayed).await;
    let mut thief = Stranger::connect(&installation).await;
    assert_eq!(thief.client.publish(publish.clone()).await, Some(0));
    eventually("the repetition is counted", async || {
        (installation.refused(FaultCode::Replayed).await == replayed + 1).then_some(())
    })
    .await;
    // The next thing that the thief hears answers what it asks itself.
    assert!(thief.register(&thief.request()).await.is_err());
    // After a restart nobody remembers the message, and it still is worth nothing: the answer goes where it went before.
    let (address, data) = (installation.address().await, installation.stop().await);
    let installation = Installation::orchestrator_in(data, &address).await;
    let mut thief = Stranger::connect(&installation).await;
    assert_eq!(thief.client.publish(publish).await, Some(0));
    assert!(thief.register(&thief.request()).await.is_err());
    let roster = installation.roster().await;
    assert_eq!(roster.iter().map(|entry| entry.component).collect::<Vec<_>>(), [joined]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signing_request_gets_what_the_ca_says_and_nothing_that_it_asks_for() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let orchestrator = installation.handle.status().await.orchestrator;
    let mut stranger = Stranger::connect(&installation).await;
    let mut wish = CertificateParams::default();
    wish.distinguished_name.push(DnType::CommonName, orchestrator.to_string());
    wish.distinguished_name.push(DnType::OrganizationalUnitName, "orchestrator");
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    wish.subject_alt_names = vec![SanType::DnsName("orchestrator.muster.internal".try_into().unwrap())];
    let certificate_signing_request = wish.serialize_request(&stranger.key).unwrap().pem().unwrap();
    let token = join_token(&installation).await;
    let join_proof = Some(token.proof(&certificate_signing_request));
    let request = ComponentRegistrationRequest { certificate_signing_request, join_proof, ..stranger.request() };
    let answer = stranger.register(&request).await.unwrap();
    let der = certificate_der(&answer.certificate).unwrap();
    // `verify` refuses a certificate of a CA.
    let certificate = Certificate::verify(&der, &installation.ca_der(), Timestamp::now()).unwrap();
    assert_eq!(certificate.component, answer.component_unique_identifier);
    assert!(certificate.component != orchestrator && certificate.component != victim.component);
    assert_eq!(certificate.component_type, PCS);
    for name in [orchestrator.to_string(), "orchestrator.muster.internal".to_owned()] {
        assert!(!der.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
    // Another role is not to be had with a collector's token, whichever is named in the message.
    for component_type in
        [ComponentType::Orchestrator, ComponentType::RepositoryInterface, ComponentType::PostureEvaluationService]
    {
        let token = join_token(&installation).await;
        let mut stranger = Stranger::connect(&installation).await;
        let join_proof = Some(token.proof(&stranger.request().certificate_signing_request));
        let request = ComponentRegistrationRequest { component_type, join_proof, ..stranger.request() };
        assert_eq!(stranger.register(&request).await.unwrap_err().code, FaultCode::NotAuthorized);
    }
    assert_eq!(installation.roster().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_comes_back_as_somebody_else() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let key = identity::key(&installation.data.path().join("victim/identity")).unwrap();
    let theirs = identity::signing_request(&key).unwrap();
    let token = join_token(&installation).await;
    let mut stranger = Stranger::connect(&installation).await;
    let own = stranger.request();
    let claim = ComponentRegistrationRequest { component_unique_identifier: Some(victim.component), ..own.clone() };
    // With a key of its own; with the victim's signing request, and not the victim's key; with a token.
    let with_theirs = ComponentRegistrationRequest { certificate_signing_request: theirs.clone(), ..claim.clone() };
    let join_proof = Some(token.proof(&own.certificate_signing_request));
    let with_token = ComponentRegistrationRequest { join_proof, ..claim.clone() };
    let join_proof = Some(token.proof(&theirs));
    let as_new = ComponentRegistrationRequest { certificate_signing_request: theirs, join_proof, ..own.clone() };
    for (request, code) in [
        (claim, FaultCode::UnknownComponent),
        (with_theirs, FaultCode::NotAuthorized),
        (with_token, FaultCode::NotAuthorized),
        (as_new, FaultCode::NotAuthorized),
    ] {
        assert_eq!(stranger.register(&request).await.unwrap_err().code, code, "{request:?}");
    }
    // An id that nobody has is answered as one that somebody has.
    let nobody = Some(ComponentId(Uuid::new_v4()));
    let mut stranger = Stranger::connect(&installation).await;
    let request = ComponentRegistrationRequest { component_unique_identifier: nobody, ..stranger.request() };
    assert_eq!(stranger.register(&request).await.unwrap_err().code, FaultCode::UnknownComponent);
    assert_eq!(uses_left(&installation, &token).await, 1);
    is_served(&victim, Version::V5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_public_seals_nothing_without_its_key() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    let orchestrator = installation.identity("orchestrator");
    let mut stranger = Stranger::connect(&installation).await;
    let refused = installation.refused(FaultCode::NotAuthorized).await;
    for (number, shown) in [&victim, &orchestrator].into_iter().enumerate() {
        let sealer = Sealer::with_certificate(stranger.key.serialized_der(), &[&shown.certificate_der]).unwrap();
        let request =
            ComponentRegistrationRequest { component_unique_identifier: Some(shown.component), ..stranger.request() };
        let message = sealer.seal(&envelope(shown.component, &request).to_bytes());
        assert_eq!(stranger.client.publish(Publish::of(Topic::Registration, message)).await, Some(0));
        eventually("it is refused", async || {
            (installation.refused(FaultCode::NotAuthorized).await == refused + 1 + number as u64).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_id_is_one_strangers_at_a_time_and_its_answer_reaches_nobody_else() {
    let installation = Installation::orchestrator().await;
    let token = join_token(&installation).await;
    let mut first = Stranger::connect(&installation).await;
    let mut second = Client::stranger(&installation.address().await, &first.fingerprint, Version::V5).await.unwrap();
    assert_ne!(second.connect(&Connect::of(first.own)).await, Some(0));
    assert_eq!(second.end().await, None);
    // One that listens to everybody's answers, if it were let.
    let mut other = Stranger::connect(&installation).await;
    let filters = [Topic::RegistrationAnswer(first.own).to_string(), "/orchestrator/registration/+".to_owned()];
    let denied = other.client.subscribe(&[&filters[0], &filters[1]]).await;
    assert_eq!(denied, Some(vec![reason::NOT_AUTHORISED; 2]));
    // One that registers under the first one's client id: the answer goes to the first, who did not ask.
    let message = other.sealed(&envelope(first.own, &other.request()));
    assert_eq!(other.client.publish(Publish::of(Topic::Registration, message)).await, Some(0));
    let stray = first.client.delivery().await.unwrap();
    assert_eq!(stray.topic, filters[0]);
    let join_proof = Some(token.proof(&first.request().certificate_signing_request));
    let request = ComponentRegistrationRequest { join_proof, ..first.request() };
    first.register(&request).await.unwrap();
    // The next that the other hears is what it asked for.
    assert!(other.register(&other.request()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_says_nothing_but_that_it_wants_to_join() {
    let installation = Installation::orchestrator().await;
    let mut victim = installation.scripted(PCS, "victim").await;
    let status = StatusNotification {
        publisher: victim.bus.own(),
        message: "forged".to_owned(),
        code: "security.forged".to_owned(),
        request: None,
        phase: Some(Phase::Completed),
        progress: None,
        fault: None,
    };
    let question = MessageId(Uuid::now_v7());
    async fn say<M: Message>(installation: &Installation, as_whom: ComponentId, answers: MessageId, body: &M) {
        let mut stranger = Stranger::connect(installation).await;
        let message = Envelope { in_reply_to: Some(answers), ..envelope(as_whom, body) };
        let refused = installation.refused(FaultCode::NotAuthorized).await;
        let publish = Publish::of(Topic::Registration, stranger.sealed(&message));
        assert_eq!(stranger.client.publish(publish).await, Some(0));
        eventually("it is refused", async || {
            (installation.refused(FaultCode::NotAuthorized).await == refused + 1).then_some(())
        })
        .await;
    }
    for as_whom in [victim.bus.own(), installation.handle.status().await.orchestrator] {
        say(&installation, as_whom, question, &Ack { message: question }).await;
        say(&installation, as_whom, question, &Fault::new(FaultCode::Revoked, "forged")).await;
        say(&installation, as_whom, question, &status).await;
        say(&installation, as_whom, question, &HealthCheckResponse { response: Success::Success }).await;
    }
    assert!(victim.inbox.try_recv().is_err());
    let counts = installation.handle.status().await.security_counts;
    assert!(!counts.iter().any(|(code, _)| code == "security.forged"), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_registers_a_few_times_and_in_few_bytes() {
    let installation = Installation::orchestrator().await;
    let victim = installation.enrolled(PCS, "victim").await;
    // Five times a connection; the sixth ends it.
    let mut stranger = Stranger::connect(&installation).await;
    for _ in 0..5 {
        assert!(stranger.register(&stranger.request()).await.is_err());
    }
    let message = stranger.sealed(&envelope(stranger.own, &stranger.request()));
    assert_eq!(stranger.client.publish(Publish::of(Topic::Registration, message.clone())).await, None);
    // More bytes than a registration has: the end comes with the length, before the bytes.
    for announced in [64 * 1024, 1024 * 1024, 200 * 1024 * 1024] {
        for connected in [false, true] {
            let mut stranger = Stranger::connect(&installation).await;
            let mut client = if connected {
                stranger.client
            } else {
                stranger.client =
                    Client::stranger(&installation.address().await, &stranger.fingerprint, Version::V5).await.unwrap();
                stranger.client
            };
            let first = if connected { kind::PUBLISH } else { kind::CONNECT };
            client.send(&[vec![first], length(announced), b"\0\x04".to_vec()].concat()).await.unwrap();
            is_ended_at_once(&mut client).await;
        }
    }
    // A length that never ends, and topics and payloads that a registration does not have.
    let registration = Publish::of(Topic::Registration, message);
    let others = [
        vec![kind::PUBLISH, 0xff, 0xff, 0xff, 0xff, 0xff],
        packet(kind::PUBLISH, &[0xff, 0xff, b'x']),
        Publish { payload: Vec::new(), ..registration.clone() }.bytes(Version::V5),
        Publish { qos: 2, ..registration.clone() }.bytes(Version::V5),
        Publish { packet_id: 0, ..registration.clone() }.bytes(Version::V5),
        Publish { topic: Topic::Status(victim.component).to_string().into_bytes(), ..registration }.bytes(Version::V5),
    ];
    for bytes in others {
        let mut stranger = Stranger::connect(&installation).await;
        stranger.client.send(&bytes).await.unwrap();
        is_ended_at_once(&mut stranger.client).await;
    }
    // A token that lets many in lets in no more than that at once, either.
    let scope = TokenScope { uses: 2, ..TokenScope::one(PCS, 600) };
    let token: JoinToken = installation.handle.create_token(scope).await.unwrap().parse().unwrap();
    let mut joining = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut stranger = Stranger::connect(&installation).await;
        let join_proof = Some(token.proof(&stranger.request().certificate_signing_request));
        let request = ComponentRegistrationRequest { join_proof, ..stranger.request() };
        joining.spawn(async move { stranger.register(&request).await.is_ok() });
    }
    let joined = joining.join_all().await.into_iter().filter(|is_in| *is_in).count();
    assert_eq!((joined, installation.roster().await.len()), (2, 3));
    is_served(&victim, Version::V5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_no_stranger_and_no_other_member() {
    let installation = Installation::orchestrator().await;
    let attacker = installation.enrolled(PCS, "attacker").await;
    let victim = installation.enrolled(PCS, "victim").await;
    let token = join_token(&installation).await;
    // Over its own connection a member may say whatever strangers say, and gets no more by it.
    let stranger = Stranger::connect(&installation).await;
    let mut client = system_tests::attack::connected(&attacker, Version::V5).await;
    let claim =
        ComponentRegistrationRequest { component_unique_identifier: Some(victim.component), ..stranger.request() };
    let key = identity::key(&installation.data.path().join("attacker/identity")).unwrap();
    let honest = ComponentRegistrationRequest {
        component_unique_identifier: Some(attacker.component),
        certificate_signing_request: identity::signing_request(&key).unwrap(),
        ..stranger.request()
    };
    let own_claim_other_name = sealed(&attacker, &envelope(victim.component, &honest));
    let own_seal_other_claim = sealed(&attacker, &envelope(attacker.component, &claim));
    let own_seal_other_name = sealed(&attacker, &envelope(victim.component, &claim));
    let bare_key = stranger.sealed(&envelope(victim.component, &claim));
    let refused = installation.refused_in_all().await;
    for message in [own_claim_other_name, own_seal_other_claim, own_seal_other_name, bare_key] {
        assert_eq!(client.publish(Publish::of(Topic::Registration, message)).await, Some(0));
    }
    eventually("all of it is refused", async || (installation.refused_in_all().await == refused + 4).then_some(()))
        .await;
    assert_eq!(uses_left(&installation, &token).await, 1);
    let roster = installation.roster().await;
    assert_eq!(roster.len(), 2);
    is_served(&victim, Version::V5).await;
}
