// Drives the simulator with Rally's own JavaScript client and checks what comes back.
//
// Usage: NODE_PATH=DIR/node_modules node rally_js_check.js URL     (needs `npm install rally`)
//
// See pyral_check.py for the reason. This client adds what pyral does otherwise: updates by PUT, collections by
// `CollectionItems`, and the same envelope read for every answer.

const rally = require('rally');

const server = process.argv[2];
const client = rally({ server, apiKey: '_full-access-key' });
const PAGE = 20;
const PAGED = 45;
let checks = 0;

function check(what, holds, seen) {
  if (!holds) {
    throw new Error(`failed: ${what}: ${JSON.stringify(seen)}`);
  }
  checks += 1;
  console.log(`ok  ${what}`);
}

async function create(type, data, options = {}) {
  return (await client.create({ type, data, ...options })).Object;
}

async function read(object, fetch) {
  return (await client.get({ ref: object._ref, fetch })).Object;
}

/** Returns the text of the refusal, or nothing. */
async function refusal(promise) {
  return promise.then(() => '', (error) => String(error.message));
}

async function objects() {
  const defect = await create('defect', { Name: 'Cannot print' }, { fetch: ['FormattedID'] });
  check('creates and names a field', /^DE\d+$/.test(defect.FormattedID), defect);
  const repository = await create('scmrepository', { Name: 'js', SCMType: 'Git' });
  check('creates without naming fields', repository.Name === 'js' && repository.SCMType === 'Git', repository);
  const changeset = await create('changeset', {
    SCMRepository: repository._ref, Revision: 'js1', CommitTimestamp: '2026-02-03T04:05:06Z',
  });
  check('names a changeset after its repository', changeset._refObjectName === 'js:js1', changeset);
  check('reads', (await read(defect, ['Name'])).Name === 'Cannot print');
  await client.update({ ref: defect._ref, data: { State: 'Fixed' } });
  check('updates', (await read(defect, ['State'])).State === 'Fixed');
  return { defect, repository, changeset };
}

async function queries() {
  const story = await create('hierarchicalrequirement', { Name: 'Parent' });
  for (let number = 1; number <= PAGED; number += 1) {
    await create('task', { Name: `paged ${String(number).padStart(2, '0')}`, WorkProduct: story._ref });
  }
  const query = rally.util.query.where('Name', 'contains', 'paged');
  const found = await client.query({
    type: 'task', query, order: 'Name DESC', fetch: ['Name'], pageSize: PAGE, limit: PAGED,
  });
  const names = found.Results.map((row) => row.Name);
  const ordered = [...names].sort().reverse();
  check('queries with order and pages', names.length === PAGED && names.join() === ordered.join(), names);
  const ranked = await client.query({ type: 'task', query, order: 'Rank', limit: 1, fetch: ['Name'] });
  check('orders by rank', ranked.Results[0].Name === 'paged 01', ranked.Results);
  const both = query.and('Name', '=', 'paged 07').or('State', '=', 'nowhere');
  check('joins conditions', (await client.query({ type: 'task', query: both })).TotalResultCount === 1);
}

async function collections({ defect, changeset }) {
  const linked = async () => (await client.query({ ref: `${changeset._ref}/Artifacts`, fetch: ['FormattedID'] })).Results;
  const edit = { ref: changeset._ref, collection: 'Artifacts', data: [{ _ref: defect._ref }] };
  await client.add(edit);
  check('adds to a collection', (await linked())[0].FormattedID === defect.FormattedID);
  await client.remove(edit);
  check('removes from a collection', (await linked()).length === 0);
}

async function refusals({ defect, changeset }) {
  const bad = await refusal(client.update({ ref: defect._ref, data: { State: 'Frozen' } }));
  check('is refused a state that is none', bad.includes('Frozen is an invalid value'), bad);
  await client.del({ ref: changeset._ref });
  const gone = await refusal(read(changeset, ['Revision']));
  check('deletes', gone.includes('Cannot find object to read'), gone);
  const wrong = await refusal(rally({ server, apiKey: '_nobody' }).query({ type: 'defect' }));
  check('is refused with a wrong key', wrong.includes('401'), wrong);
}

async function main() {
  const made = await objects();
  await queries();
  await collections(made);
  await refusals(made);
  console.log(`rally (JavaScript): all ${checks} checks passed`);
}

main().catch((error) => {
  console.error(`rally (JavaScript): ${error.message}`);
  process.exit(1);
});
