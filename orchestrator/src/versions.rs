//! Versions of policies. Of each name one is in force; what is imported later waits until an operator has seen what it would
//! change, and activates it. A tailored policy is one of its own, and is made anew when the one that it tailors changes.

use std::time::Duration;

use jiff::Timestamp;
use proto::content::{ContentHash, ContentRef};
use proto::fault::{Fault, FaultCode};
use proto::limits::shown;
use proto::message::{PolicyDescription, PolicyOrigin, ProfileDescription};
use proto::operator::PolicyImport;
use scap::policy::Policy;
use service::audit::{Act, Actor};

use crate::driver::Handle;
use crate::policies::is_name;

/// A policy that was read.
struct Read {
    policy: Policy,
    bytes: Vec<u8>,
    profiles: Vec<ProfileDescription>,
    /// Of the data stream, or of the tailoring.
    source_sha256: ContentHash,
}

/// Reads a data stream, or with a policy the tailoring of that.
fn read(base: Option<Policy>, source: Vec<u8>) -> Result<Read, String> {
    let plain = scap::source::plain(source).map_err(|error| error.to_string())?;
    let source_sha256 = ContentHash::of(&plain);
    let policy = match base {
        None => scap::datastream::read(plain).map_err(|error| error.to_string())?,
        Some(mut policy) => {
            let profiles = scap::tailoring::read(&plain).map_err(|error| error.to_string())?;
            if profiles.is_empty() {
                return Err("the tailoring has no profile".to_owned());
            }
            scap::tailoring::join(&mut policy.benchmark, profiles);
            policy
        }
    };
    let profiles = policy.benchmark.profiles.iter().map(|profile| {
        let compiled = scap::compile::compile(&policy, Some(&profile.id));
        let selected = compiled.map(|compiled| compiled.rules.iter().filter(|rule| rule.selected).count() as u64);
        ProfileDescription {
            id: profile.id.clone(),
            title: profile.title.clone(),
            selected_count: selected.unwrap_or_default(),
        }
    });
    let profiles = profiles.collect();
    Ok(Read { bytes: policy.to_bytes(), policy, profiles, source_sha256 })
}

impl Handle {
    /// Takes a data stream, or a tailoring, as a policy, and waits until a repository has it. What was left out comes along
    /// in words.
    pub(crate) async fn import_policy(
        &self,
        import: PolicyImport,
        source: Vec<u8>,
        actor: Actor,
    ) -> Result<(PolicyDescription, Vec<String>), Fault> {
        if !is_name(&import.name) {
            let text = "a policy's name is up to 64 letters, digits, dots, dashes and underscores";
            return Err(Fault::new(FaultCode::Malformed, text));
        }
        let signed_by = self.signer_of(import.signature.as_deref(), &source).await?;
        let (policy, mut notices) = self.keep_policy(import, source, signed_by, actor.clone()).await?;
        if !policy.is_waiting {
            notices.extend(self.derive_again(&policy, &actor).await);
        }
        if self.publish(&policy, Duration::from_mins(1)).await.is_err() {
            notices.push("no repository has taken the policy yet; it is sent until one does".to_owned());
        }
        Ok((policy, notices))
    }

    /// The same of what comes with the program, or is made here.
    pub(crate) async fn keep_policy(
        &self,
        import: PolicyImport,
        source: Vec<u8>,
        signed_by: Option<String>,
        actor: Actor,
    ) -> Result<(PolicyDescription, Vec<String>), Fault> {
        let base = match &import.tailors {
            Some(name) if *name == import.name => {
                let text = "a tailored policy has a name of its own: the one that it tailors goes on";
                return Err(Fault::new(FaultCode::Conflict, text));
            }
            Some(name) => Some(self.policy_named(name).await?),
            None => None,
        };
        let base_policy = match &base {
            Some(base) => Some(self.read_policy(base).await?),
            None => None,
        };
        let derived_from = match &base {
            Some(base) => {
                let tailoring = ContentRef::to(&source);
                self.keep_content(source.clone()).await?;
                let number = self.number_of(base).await?;
                Some(PolicyOrigin { name: base.name.clone(), number, content: base.content.sha256.clone(), tailoring })
            }
            None => None,
        };
        let read = tokio::task::spawn_blocking(move || read(base_policy, source))
            .await
            .map_err(|_| Fault::new(FaultCode::Internal, "reading the data stream failed badly"))?;
        let Read { policy, bytes, profiles, source_sha256 } =
            read.map_err(|text| Fault::new(FaultCode::ContentInvalid, text))?;
        let content = ContentRef::to(&bytes);
        // One at a time: versions are counted.
        let _changing = self.inner.policies.changing.lock().await;
        self.keep_content(bytes).await?;
        let versions = self.inner.store.policy_versions().await?;
        let versions: Vec<PolicyDescription> =
            versions.into_iter().filter(|version| version.name == import.name).collect();
        if let Some(known) = versions.iter().find(|known| known.content == content) {
            let notice = format!("it is there already, as version {}", known.number.unwrap_or(1));
            let known = known.clone();
            let known = if import.is_activated { self.put_in_force(known, actor).await? } else { known };
            return Ok((known, vec![notice]));
        }
        let benchmark = &policy.benchmark;
        let mut description = PolicyDescription {
            name: import.name,
            benchmark: benchmark.id.clone(),
            title: benchmark.title.clone(),
            version: benchmark.version.clone(),
            content,
            source_sha256,
            rule_count: benchmark.rules().len() as u64,
            profiles,
            imported: Timestamp::now(),
            number: Some(versions.iter().filter_map(|version| version.number).max().unwrap_or_default() + 1),
            platforms: benchmark.platforms.clone(),
            is_waiting: !versions.is_empty(),
            activated: None,
            supersedes: None,
            signed_by,
            derived_from,
        };
        let mut detail = format!("sha256 {}", description.source_sha256.as_str());
        if let Some(signer) = &description.signed_by {
            detail = format!("{detail}, signed by {signer}");
        }
        let act = Act::new(actor.clone(), "import-policy", &description.name).because(detail);
        self.inner.store.put_policy(&description, &act).await?;
        let mut notices = policy.problems;
        if description.is_waiting && import.is_activated {
            description = self.put_in_force(description, actor).await?;
        } else if description.is_waiting {
            notices.push(format!(
                "version {} waits: `muster policy preview {name}` says what it would change, `muster policy activate {name}` \
                 puts it in force",
                description.number.unwrap_or(1),
                name = description.name,
            ));
        } else {
            self.renew_assignments(&description.name).await;
        }
        Ok((description, notices))
    }

    /// A version is the one that counts from now on.
    async fn put_in_force(&self, mut version: PolicyDescription, actor: Actor) -> Result<PolicyDescription, Fault> {
        let in_force = self.in_force(&version.name).await?;
        if in_force.as_ref().is_some_and(|in_force| in_force.content == version.content) {
            return Ok(version);
        }
        version.is_waiting = false;
        version.activated = Some(Timestamp::now());
        version.supersedes = in_force.map(|before| before.content.sha256);
        let number = version.number.unwrap_or(1);
        let act = Act::new(actor, "activate-policy", &version.name).because(format!("version {number}"));
        self.inner.store.put_policy(&version, &act).await?;
        self.renew_assignments(&version.name).await;
        Ok(version)
    }

    async fn in_force(&self, name: &str) -> Result<Option<PolicyDescription>, Fault> {
        Ok(self.inner.store.policies().await?.into_iter().find(|policy| policy.name == name))
    }

    /// Which version a policy is.
    async fn number_of(&self, policy: &PolicyDescription) -> Result<u64, Fault> {
        let versions = self.inner.store.policy_versions().await?;
        let same = versions.into_iter().find(|known| known.name == policy.name && known.content == policy.content);
        Ok(same.and_then(|known| known.number).or(policy.number).unwrap_or(1))
    }

    async fn read_policy(&self, policy: &PolicyDescription) -> Result<Policy, Fault> {
        let bytes = self.policy_bytes(policy).await?;
        let read = tokio::task::spawn_blocking(move || Policy::from_bytes(&bytes)).await;
        let read = read.map_err(|_| Fault::new(FaultCode::Internal, "the policy could not be read"))?;
        read.map_err(|error| Fault::new(FaultCode::ContentInvalid, error.to_string()))
    }

    /// The versions of a policy, the oldest first.
    pub(crate) async fn policy_versions(&self, name: &str) -> Result<Vec<PolicyDescription>, Fault> {
        let mut versions = self.inner.store.policy_versions().await?;
        versions.retain(|version| version.name == name);
        if versions.is_empty() {
            // Says which there are; one that only the repository has is its own only version.
            versions.push(self.policy_named(name).await?);
        }
        Ok(versions)
    }

    /// A version of a policy by its number; without, the newest that waits.
    pub(crate) async fn policy_version(&self, name: &str, number: Option<u64>) -> Result<PolicyDescription, Fault> {
        let versions = self.policy_versions(name).await?;
        let Some(number) = number else {
            let waiting = versions.into_iter().rfind(|version| version.is_waiting);
            return waiting.ok_or_else(|| {
                let text = format!("no version of `{}` waits; `muster policy versions {0}`", shown(name));
                Fault::new(FaultCode::UnknownIdentifier, text)
            });
        };
        let last = versions.last().and_then(|version| version.number).unwrap_or(1);
        versions.into_iter().find(|version| version.number == Some(number)).ok_or_else(|| {
            let text = format!("there is no version {number} of `{}`; the last one is {last}", shown(name));
            Fault::new(FaultCode::UnknownIdentifier, text)
        })
    }

    /// Puts a version in force: the newest that waits, or one that is named, also one of before.
    pub(crate) async fn activate_policy(
        &self,
        actor: Actor,
        name: &str,
        number: Option<u64>,
    ) -> Result<Vec<String>, Fault> {
        let version = {
            let _changing = self.inner.policies.changing.lock().await;
            let version = self.policy_version(name, number).await?;
            let is_in_force = self.in_force(name).await?.is_some_and(|in_force| in_force.content == version.content);
            if is_in_force {
                let text = format!("version {} of `{name}` is in force already", version.number.unwrap_or(1));
                return Err(Fault::new(FaultCode::Conflict, text));
            }
            self.put_in_force(version, actor.clone()).await?
        };
        let number = version.number.unwrap_or(1);
        let mut notices = vec![format!("version {number} of `{name}` is in force; what is assigned is decided anew")];
        notices.extend(self.derive_again(&version, &actor).await);
        if self.publish(&version, Duration::from_mins(1)).await.is_err() {
            notices.push("no repository has heard of it yet; it is told until one does".to_owned());
        }
        Ok(notices)
    }

    /// Policies that tailor this one get a version that tailors it as it is now; it waits like any other.
    pub(crate) async fn derive_again(&self, base: &PolicyDescription, actor: &Actor) -> Vec<String> {
        let Ok(policies) = self.inner.store.policies().await else { return Vec::new() };
        let mut notices = Vec::new();
        for derived in policies {
            let Some(origin) = derived.derived_from.filter(|origin| origin.name == base.name) else { continue };
            if origin.content == base.content.sha256 {
                continue;
            }
            let Some(tailoring) = self.find_content(&origin.tailoring.sha256).await else {
                notices.push(format!("the tailoring of `{}` is not here any more: give it again", derived.name));
                continue;
            };
            let import = PolicyImport {
                name: derived.name.clone(),
                tailors: Some(base.name.clone()),
                ..PolicyImport::default()
            };
            let kept = self.keep_policy(import, tailoring.to_vec(), derived.signed_by, actor.clone()).await;
            match kept {
                Ok((version, told)) => {
                    notices.extend(told);
                    // A repository that is not there now gets it when it comes.
                    let _ = self.publish(&version, Duration::from_secs(5)).await;
                }
                Err(fault) => notices.push(format!("`{}` cannot be made of it anew: {}", derived.name, fault.message)),
            }
        }
        notices
    }
}
