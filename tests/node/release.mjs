// A deployment as a Node program makes it: create, deploy at 0 % with a tag, shift, a stale etag, list, delete. Prints one JSON object.
// node release.mjs HOST:PORT PARENT SERVICE IMAGE
import { credentials } from '@grpc/grpc-js';
import run from '@google-cloud/run';

const [host, parent, id, image] = process.argv.slice(2);
const [servicePath, port] = host.split(':');
const options = { apiEndpoint: servicePath, port: Number(port), sslCreds: credentials.createInsecure(), projectId: 'test-project' };
const services = new run.ServicesClient(options);
const revisions = new run.RevisionsClient(options);
const name = `${parent}/services/${id}`;
const told = {};

const template = (version) => ({ containers: [{ image, env: [{ name: 'SAY', value: version }] }] });
const done = async (call) => {
  const [operation] = await call;
  const [response] = await operation.promise();
  return response;
};

const made = await done(services.createService({ parent, serviceId: id, service: { template: template('1'), invokerIamDisabled: true } }));
const stable = made.latestReadyRevision.split('/').pop();
told.uri = made.uri;
told.condition = made.terminalCondition.state;
told.cpu = made.template.containers[0].resources.limits.cpu;

const pinned = [
  { type: 'TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION', revision: stable, percent: 100 },
  { type: 'TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST', percent: 0, tag: 'candidate' },
];
const deployed = await done(
  services.updateService({
    service: { name, etag: made.etag, template: template('2'), traffic: pinned },
    updateMask: { paths: ['template', 'traffic'] },
  })
);
const candidate = deployed.latestReadyRevision.split('/').pop();
told.statuses = deployed.trafficStatuses.map(({ revision, percent, tag }) => ({ revision, percent, tag }));
told.tagged = await (await fetch(`${deployed.trafficStatuses[1].uri}/`)).text();
told.stable = await (await fetch(`${deployed.uri}/`)).text();

try {
  await services.updateService({ service: { name, etag: made.etag, traffic: [] }, updateMask: { paths: ['traffic'] } });
} catch (error) {
  told.stale = { code: error.code, details: error.details };
}

const shifted = await done(
  services.updateService({
    service: { name, etag: deployed.etag, traffic: [{ type: 'TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION', revision: candidate, percent: 100 }] },
    updateMask: { paths: ['traffic'] },
  })
);
told.shifted = await (await fetch(`${shifted.uri}/`)).text();
const [listed] = await revisions.listRevisions({ parent: name });
told.revisions = listed.map((each) => each.name.split('/').pop());
told.expected = [candidate, stable];

try {
  await services.getService({ name: `${parent}/services/nobody` });
} catch (error) {
  told.missing = { code: error.code, details: error.details };
}
await done(services.deleteService({ name }));
told.left = (await services.listServices({ parent }))[0].map((each) => each.name).filter((each) => each === name);
console.log(JSON.stringify(told));
