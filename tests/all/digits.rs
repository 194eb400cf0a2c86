//! The main job: the digits, and what is true about them.

use std::collections::BTreeMap;

use host::{
    gateway::wire::{InputRequest, JobRequest},
    sandbox::{Request, Response, Sandbox, SandboxOptions},
};
use registry::{
    id::{JobId, ModelHash, ModuleHash},
    job::Split,
};
use support::Cluster;

fn pixels() -> &'static [u8] {
    tasks::data::DIGITS_PIXELS
}

/// Publishes what the job needs and submits it.
pub(crate) async fn submit(cluster: &Cluster, lines_per_shard: u64) -> JobId {
    cluster.submit(&request(cluster, lines_per_shard).await).await
}

/// Publishes what the job needs.
pub(crate) async fn request(cluster: &Cluster, lines_per_shard: u64) -> JobRequest {
    let module = cluster.publish(tasks::DIGITS.wasm).await;
    let model = cluster.publish(tasks::data::DIGITS_MODEL).await;
    let input = cluster.publish(pixels()).await.parse().expect("a hash");
    JobRequest {
        module,
        models: Some(BTreeMap::from([("digits".to_owned(), model.parse().expect("a hash"))])),
        input: InputRequest::Blob(input),
        split: Split::Lines(lines_per_shard),
        ..JobRequest::default()
    }
}

/// What a sandbox of our own says of all digits at once.
pub(crate) fn truth() -> Vec<u8> {
    let sandbox = Sandbox::new(SandboxOptions::default()).expect("a sandbox");
    let (module, model) = (ModuleHash::of(tasks::DIGITS.wasm), ModelHash::of(tasks::data::DIGITS_MODEL));
    sandbox.load_module(module, tasks::DIGITS.wasm).expect("the module loads");
    sandbox.load_model(model, tasks::data::DIGITS_MODEL).expect("the model loads");
    let models = BTreeMap::from([("digits".to_owned(), model)]);
    match sandbox.run(Request { stdin: pixels().into(), models, ..Request::new(module) }) {
        Response::Done(done) => done.stdout.to_vec(),
        Response::Fault(fault) => panic!("{fault}"),
    }
}
