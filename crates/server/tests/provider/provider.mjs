// A real OpenID provider for tests: `node provider.mjs <callback URL>`. Prints its issuer URL once it listens.
// Everybody logs in with any password; who is in which group is written here.
import { createServer } from 'node:http';
import { Provider } from 'oidc-provider';

const callback = process.argv[2];
const groups = { lan: ['audit-team', 'everybody'], minh: ['everybody'], hoa: ['audit-team'] };

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'muniment',
        client_secret: 'not a secret: this provider is for tests only',
        redirect_uris: [callback],
        response_types: ['code'],
        grant_types: ['authorization_code', 'client_credentials'],
      },
    ],
    pkce: { required: () => true },
    scopes: ['openid', 'profile', 'email', 'groups'],
    claims: { openid: ['sub'], profile: ['name', 'preferred_username'], email: ['email', 'email_verified'], groups: ['groups'] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, name: `${id} <b>Nguyễn</b>`, preferred_username: id, email: `${id}@example.org`, email_verified: true, groups: groups[id] ?? [] }),
    }),
    features: {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({ scope: 'send', audience: 'muniment-api', accessTokenFormat: 'jwt', accessTokenTTL: 600, jwt: { sign: { alg: 'RS256' } } }),
      },
    },
    extraTokenClaims: () => ({ groups: ['senders'] }),
    cookies: { keys: ['only', 'for', 'tests'] },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
