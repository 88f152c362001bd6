//! Policies as they are kept: versions, of which one is in force, signers, and feeds.

use proto::message::PolicyDescription;
use proto::operator::{PolicyFeed, PolicySigner};
use service::audit::Act;
use sqlx::Row as _;

use super::{RowOf, SqlStore, StoreError, Table, audit, json, put};

const POLICY: Table = table!("policy", "name");
const SIGNER: Table = table!("policy_signer", "name");
const FEED: Table = table!("policy_feed", "name");

impl SqlStore {
    /// Of each name the policy that is in force.
    pub async fn policies(&self) -> Result<Vec<PolicyDescription>, StoreError> {
        self.documents("SELECT document FROM policy ORDER BY name").await
    }

    /// The versions of all policies, the oldest first.
    pub async fn policy_versions(&self) -> Result<Vec<PolicyDescription>, StoreError> {
        let rows = sqlx::query("SELECT number, document FROM policy_version ORDER BY name, number");
        let rows = rows.fetch_all(&self.readers).await?;
        let version = |row: &RowOf| -> Result<PolicyDescription, StoreError> {
            let text: String = row.try_get("document")?;
            let mut policy: PolicyDescription = serde_json::from_str(&text).map_err(StoreError::Damaged)?;
            policy.number = Some(row.try_get::<i64, _>("number")?.unsigned_abs());
            Ok(policy)
        };
        rows.iter().map(version).collect()
    }

    /// Keeps a version; where it does not wait, it is the one in force from now on.
    pub async fn put_policy(&self, policy: &PolicyDescription, act: &Act) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT INTO policy_version (name, number, document) VALUES ($1, $2, $3) \
             ON CONFLICT (name, number) DO UPDATE SET document = excluded.document",
        )
        .bind(&policy.name)
        .bind(policy.number.unwrap_or(1).cast_signed())
        .bind(json(policy))
        .execute(&mut *tx)
        .await?;
        let effect = if policy.is_waiting {
            audit::Effect::default()
        } else {
            put(&mut tx, POLICY, &policy.name, &json(policy)).await?
        };
        audit::record(&mut tx, act, effect).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Keys whose signatures are believed.
    pub async fn signers(&self) -> Result<Vec<PolicySigner>, StoreError> {
        self.documents("SELECT document FROM policy_signer ORDER BY name").await
    }

    /// Believes a key.
    pub async fn put_signer(&self, signer: &PolicySigner, act: &Act) -> Result<(), StoreError> {
        self.put_and_record(SIGNER, &signer.name, &json(signer), act).await
    }

    /// Believes it no more.
    pub async fn remove_signer(&self, name: &str, act: &Act) -> Result<(), StoreError> {
        self.remove(SIGNER, "DELETE FROM policy_signer WHERE name = $1", name, act).await
    }

    /// Where policies are looked for.
    pub async fn feeds(&self) -> Result<Vec<PolicyFeed>, StoreError> {
        self.documents("SELECT document FROM policy_feed ORDER BY name").await
    }

    /// Keeps a feed; with an act, it was an operator's word.
    pub async fn put_feed(&self, feed: &PolicyFeed, act: Option<&Act>) -> Result<(), StoreError> {
        self.put_maybe_recorded(FEED, &feed.name, &json(feed), act).await
    }

    /// A feed is no more.
    pub async fn remove_feed(&self, name: &str, act: &Act) -> Result<(), StoreError> {
        self.remove(FEED, "DELETE FROM policy_feed WHERE name = $1", name, act).await
    }
}
