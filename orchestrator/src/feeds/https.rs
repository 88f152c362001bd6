//! Feeds over HTTPS: one data stream at a URL, its signature at the same with `.sig`. What has not changed since it was taken is
//! not loaded again.

use hyper::StatusCode;
use proto::content::ContentHash;
use proto::limits::{FEED_CA_BYTES_MAX, shown};
use proto::operator::{HttpsSource, PolicyFeed};
use service::report::Chain;
use url::Url;

use super::fetch::{Client, FeedLimits, FetchError, File, Validators, authorities_in, url_of};
use super::policy_name;
use crate::driver::Handle;

/// Bytes of a signature.
const SIGNATURE_BYTES_MAX: u64 = 64 * 1024;

/// What was taken last; whatever was not taken leaves it as it is.
#[derive(Debug, Default)]
pub(super) struct Seen {
    validators: Option<Validators>,
    /// Of the data stream, for servers that give nothing to ask with.
    sha256: Option<ContentHash>,
}

/// The URL of a data stream, and what its file is called there.
fn place(text: &str) -> Result<(Url, String), String> {
    let url = url_of(text)?;
    let file = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default().to_owned();
    if policy_name(&file).is_none() {
        let text = "the URL does not end like a data stream's: in NAME.xml or NAME-ds.xml, maybe with .xz or .gz, NAME of \
                    letters, digits, dots, dashes and underscores";
        return Err(text.to_owned());
    }
    Ok((url, file))
}

/// Whether a feed can be followed, as far as that can be said without asking the server.
pub(super) fn check(source: &HttpsSource) -> Result<(), String> {
    place(&source.url)?;
    if let Some(ca) = &source.ca {
        if ca.len() > FEED_CA_BYTES_MAX {
            return Err(format!("the certificates have more than {} KiB", FEED_CA_BYTES_MAX / 1024));
        }
        authorities_in(ca)?;
    }
    Ok(())
}

fn signature_url(url: &Url) -> Url {
    let mut beside = url.clone();
    beside.set_path(&format!("{}.sig", url.path()));
    beside
}

/// The signature that belongs to a data stream, if there is one.
async fn signature(client: &Client, url: &Url) -> Result<Option<String>, String> {
    match client.get(&signature_url(url), None, SIGNATURE_BYTES_MAX).await {
        Ok(file) => Ok(file.map(|file| String::from_utf8_lossy(&file.bytes).into_owned())),
        // Some stores of files say that what is not there is forbidden. Whether there has to be one is decided elsewhere.
        Err(FetchError::Status(StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::FORBIDDEN)) => Ok(None),
        Err(error) => Err(format!("its signature cannot be read: {}", Chain(&error))),
    }
}

/// The data stream with its signature; none if it is what was taken last.
async fn fetch(
    source: &HttpsSource,
    url: &Url,
    seen: &Seen,
    limits: FeedLimits,
) -> Result<Option<(File, Option<String>)>, String> {
    let ca = source.ca.clone();
    let client = tokio::task::spawn_blocking(move || Client::new(ca.as_deref(), limits.connect)).await;
    let client = client.map_err(|error| error.to_string())??;
    let file = client.get(url, seen.validators.as_ref(), limits.content_bytes).await;
    let Some(file) = file.map_err(|error| Chain(&error).to_string())? else { return Ok(None) };
    let signature = signature(&client, url).await?;
    Ok(Some((file, signature)))
}

impl Handle {
    /// Looks at a URL; what went wrong.
    pub(super) async fn look_at_url(
        &self,
        feed: &PolicyFeed,
        source: &HttpsSource,
        seen: &mut Seen,
        limits: FeedLimits,
    ) -> Vec<String> {
        let (url, file) = match place(&source.url) {
            Ok(place) => place,
            Err(text) => return vec![text],
        };
        let taken = self.take_from_url(feed, source, (&url, &file), seen, limits).await;
        taken.err().map(|text| format!("{}: {text}", shown(&file))).into_iter().collect()
    }

    async fn take_from_url(
        &self,
        feed: &PolicyFeed,
        source: &HttpsSource,
        (url, name): (&Url, &str),
        seen: &mut Seen,
        limits: FeedLimits,
    ) -> Result<(), String> {
        let fetched = tokio::time::timeout(limits.look, fetch(source, url, seen, limits)).await;
        let fetched =
            fetched.map_err(|_| format!("the server has not sent it within {} s", limits.look.as_secs()))??;
        let Some((file, signature)) = fetched else { return Ok(()) };
        let sha256 = ContentHash::of(&file.bytes);
        if seen.sha256.as_ref() != Some(&sha256) {
            // That may have taken minutes.
            if !self.is_followed(feed).await {
                return Ok(());
            }
            let taken = self.take_from_feed(&feed.name, name, file.bytes, signature).await;
            taken
                .map_err(|text| if file.is_page { format!("the server has sent a web page: {text}") } else { text })?;
        }
        *seen = Seen { validators: file.validators, sha256: Some(sha256) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_ends_in_the_name_of_a_data_stream() {
        for (text, file) in [
            ("https://example.org/content/ssg-debian12-ds.xml.xz", "ssg-debian12-ds.xml.xz"),
            ("https://example.org/cis.xml?version=2", "cis.xml"),
        ] {
            assert_eq!(place(text).unwrap().1, file);
        }
        for text in [
            "https://example.org",
            "https://example.org/",
            "https://example.org/a.zip",
            "https://example.org/a%20b.xml",
        ] {
            assert!(place(text).unwrap_err().contains("does not end"), "{text}");
        }
    }

    #[test]
    fn a_signature_is_beside_its_file() {
        let url = url_of("https://example.org/cis.xml?version=2").unwrap();
        assert_eq!(signature_url(&url).as_str(), "https://example.org/cis.xml.sig?version=2");
    }
}
