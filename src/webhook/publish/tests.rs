use kube::api::PostParams;
use serde_json::json;

use super::*;

fn settings() -> Settings {
    Settings {
        name: "orbweaver-controller".to_owned(),
        owner: "orbweaver-controller-webhook".to_owned(),
        service: ("kube-system".to_owned(), "orbweaver-controller".to_owned()),
        port: 443,
        failure_policy: FailurePolicy::Ignore,
        user: "system:serviceaccount:kube-system:orbweaver-controller".to_owned(),
    }
}

#[test]
fn only_specs_that_others_write_are_asked_about_and_never_a_status_or_a_pod() {
    let wanted = serde_json::to_value(validating(&settings(), "PEM", "uid")).unwrap();
    let webhooks = wanted["webhooks"].as_array().unwrap();
    let names: Vec<_> = webhooks
        .iter()
        .map(|w| w["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "spidersubnet.spiderpool.spidernet.io",
            "spiderippool.spiderpool.spidernet.io",
            "spiderreservedip.spiderpool.spidernet.io",
        ]
    );
    let pool = &webhooks[1];
    let rule = json!([{
        "apiGroups": ["spiderpool.spidernet.io"], "apiVersions": ["v2beta1"],
        "operations": ["CREATE", "UPDATE"], "resources": ["spiderippools"], "scope": "*",
    }]);
    assert_eq!(pool["rules"], rule);
    assert_eq!(pool["failurePolicy"], "Ignore");
    let path = "/validate-spiderpool-spidernet-io-v2beta1-spiderippool";
    assert_eq!(pool["clientConfig"]["service"]["path"], path);
    assert_eq!(pool["clientConfig"]["caBundle"], "UEVN");
    let conditions: Vec<_> = pool["matchConditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["expression"].as_str().unwrap())
        .collect();
    assert_eq!(
        conditions,
        [
            "request.userInfo.username != 'system:serviceaccount:kube-system:orbweaver-controller'",
            "oldObject == null || object.spec != oldObject.spec",
        ]
    );
    assert_eq!(wanted["metadata"]["ownerReferences"][0]["uid"], "uid");
    // A certificate of a public authority needs no bundle.
    let public = serde_json::to_value(mutating(&settings(), "", "uid")).unwrap();
    assert!(public["webhooks"][0]["clientConfig"]["caBundle"].is_null());
}

/// What somebody changed is put right, a new bundle goes out.
#[tokio::test]
async fn what_is_as_it_should_be_is_not_written() {
    let server = kubesim::Server::new(5);
    let client = server.client("controller");
    write_owned(&client, &settings(), "one", "uid")
        .await
        .unwrap();
    let before = server.revision();
    write_owned(&client, &settings(), "one", "uid")
        .await
        .unwrap();
    assert_eq!(server.revision(), before);
    write_owned(&client, &settings(), "two", "uid")
        .await
        .unwrap();
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let find = async || api.get("orbweaver-controller").await.unwrap();
    let mut found = find().await;
    assert!(found.has_webhooks_of(&validating(&settings(), "two", "uid")));
    found.webhooks = None;
    api.replace("orbweaver-controller", &PostParams::default(), &found)
        .await
        .unwrap();
    write_owned(&client, &settings(), "two", "uid")
        .await
        .unwrap();
    assert!(
        find()
            .await
            .has_webhooks_of(&validating(&settings(), "two", "uid"))
    );
}
