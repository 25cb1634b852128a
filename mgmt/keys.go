package mgmt

import (
	"net/http"

	"github.com/portcullis-id/portcullis/tenant"
)

func (a *API) registerKeys(mux *http.ServeMux) {
	a.handle(mux, "GET keys/signing", []string{"read:signing_keys"}, a.listKeys)
	a.handle(mux, "GET keys/signing/{kid}", []string{"read:signing_keys"}, a.getKey)
	a.handle(mux, "POST keys/signing/rotate", []string{"create:signing_keys"}, a.rotateKeys)
	a.handle(mux, "PUT keys/signing/{kid}/revoke", []string{"update:signing_keys"}, a.revokeKey)
}

func keyView(k *tenant.SigningKey) (doc, error) {
	d, err := asDoc(k)
	if err != nil {
		return nil, err
	}
	for _, ours := range []string{"private_key", "use", "type", "created_at"} {
		delete(d, ours)
	}
	return d, nil
}

func (a *API) listKeys(c *call) (int, any, error) {
	all, err := a.Keys.List(c.ctx(), c.tenant)
	if err != nil {
		return 0, nil, err
	}
	out := make([]any, len(all))
	for i, k := range all {
		if out[i], err = keyView(k); err != nil {
			return 0, nil, err
		}
	}
	return http.StatusOK, out, nil
}

func (a *API) getKey(c *call) (int, any, error) {
	k, err := a.Keys.Get(c.ctx(), c.tenant, c.PathValue("kid"))
	if err != nil {
		return 0, nil, err
	}
	d, err := keyView(k)
	return http.StatusOK, d, err
}

func (a *API) rotateKeys(c *call) (int, any, error) {
	k, err := a.Keys.Rotate(c.ctx(), c.tenant)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusCreated, doc{"kid": k.KeyID, "cert": k.Cert}, nil
}

func (a *API) revokeKey(c *call) (int, any, error) {
	k, err := a.Keys.Revoke(c.ctx(), c.tenant, c.PathValue("kid"))
	if err != nil {
		return 0, nil, err
	}
	return http.StatusOK, doc{"kid": k.KeyID, "cert": k.Cert}, nil
}
