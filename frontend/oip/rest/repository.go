// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/clipper-serving/clipper/frontend/naturaljson"
	"github.com/clipper-serving/clipper/gen/go/inference"
)

// models lists the names, as KServe does.
func (h *Handler) models(w http.ResponseWriter, r *http.Request, _ place) error {
	index, err := h.client.RepositoryIndex(r.Context(), &inference.RepositoryIndexRequest{})
	if err != nil {
		return err
	}
	b := []byte(`{"models":[`)
	seen := map[string]bool{} // A model has an entry for each of its versions.
	for _, m := range index.GetModels() {
		if seen[m.GetName()] {
			continue
		}
		if len(seen) > 0 {
			b = append(b, ',')
		}
		b = naturaljson.AppendText(b, m.GetName())
		seen[m.GetName()] = true
	}
	return writeJSON(w, r, append(b, "]}"...))
}

// index lists models with their versions and states.
func (h *Handler) index(w http.ResponseWriter, r *http.Request, _ place) error {
	q := &inference.RepositoryIndexRequest{}
	err := h.options(w, r, func(d *decoder, member string) (err error) {
		if member == "ready" {
			q.Ready, err = d.boolean()
			return err
		}
		return d.Skip()
	})
	if err != nil {
		return err
	}
	index, err := h.client.RepositoryIndex(r.Context(), q)
	if err != nil {
		return err
	}
	b := []byte{'['}
	for i, m := range index.GetModels() {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendMessage(b, m)
	}
	return writeJSON(w, r, append(b, ']'))
}

func (h *Handler) load(w http.ResponseWriter, r *http.Request, p place) error {
	parameters, err := h.repositoryParameters(w, r)
	if err == nil {
		_, err = h.client.RepositoryModelLoad(r.Context(), &inference.RepositoryModelLoadRequest{ModelName: p.model, Parameters: parameters})
	}
	if err != nil {
		return err
	}
	// Triton's clients look at the status only, KServe's at this.
	b := naturaljson.AppendText([]byte(`{"name":`), p.model)
	return writeJSON(w, r, append(b, `,"load":true}`...))
}

func (h *Handler) unload(w http.ResponseWriter, r *http.Request, p place) error {
	parameters, err := h.repositoryParameters(w, r)
	if err == nil {
		_, err = h.client.RepositoryModelUnload(r.Context(), &inference.RepositoryModelUnloadRequest{ModelName: p.model, Parameters: parameters})
	}
	if err != nil {
		return err
	}
	b := naturaljson.AppendText([]byte(`{"name":`), p.model)
	return writeJSON(w, r, append(b, `,"unload":true}`...))
}

// repositoryParameters reads the parameters of a body that may be empty.
func (h *Handler) repositoryParameters(w http.ResponseWriter, r *http.Request) (map[string]*inference.ModelRepositoryParameter, error) {
	parameters := map[string]*inference.ModelRepositoryParameter{}
	err := h.options(w, r, func(d *decoder, member string) error {
		if member != "parameters" {
			return d.Skip()
		}
		at := d.Offset()
		read, err := d.parameters(func([]byte) (bool, error) { return false, nil })
		if err != nil {
			return err
		}
		for name, p := range read {
			to := &inference.ModelRepositoryParameter{}
			switch v := p.GetParameterChoice().(type) {
			case *inference.InferParameter_BoolParam:
				to.ParameterChoice = &inference.ModelRepositoryParameter_BoolParam{BoolParam: v.BoolParam}
			case *inference.InferParameter_Int64Param:
				to.ParameterChoice = &inference.ModelRepositoryParameter_Int64Param{Int64Param: v.Int64Param}
			case *inference.InferParameter_StringParam:
				to.ParameterChoice = &inference.ModelRepositoryParameter_StringParam{StringParam: v.StringParam}
				if strings.HasPrefix(name, "file:") {
					content, err := base64.StdEncoding.DecodeString(v.StringParam)
					if err != nil {
						return d.Errorf(at, invalidField, "%q is not base64", shorten(name))
					}
					to.ParameterChoice = &inference.ModelRepositoryParameter_BytesParam{BytesParam: content}
				}
			default:
				return d.Errorf(at, invalidField, "%q is a number, expected a boolean, an integer of 64 bits or a string", shorten(name))
			}
			parameters[name] = to
		}
		return nil
	})
	return parameters, err
}

// options calls member for each member of the object that a body holds, if it holds anything.
func (h *Handler) options(w http.ResponseWriter, r *http.Request, member func(d *decoder, name string) error) error {
	body, err := h.read(w, r, nil)
	if err != nil {
		return err
	}
	d := decoder{Reader: naturaljson.NewReader(body), item: -1}
	if d.Next() == 0 && d.Offset() == len(body) {
		return nil
	}
	var seen [maxParameters]string
	n := 0
	err = d.Object(func(key []byte) error {
		d.member = string(key)
		for _, name := range seen[:n] {
			if name == d.member {
				return d.Errorf(d.Offset(), malformed, "is there twice")
			}
		}
		if n == len(seen) {
			return d.Errorf(d.Offset(), tooLarge, "is one member too many")
		}
		seen[n] = d.member
		n++
		return member(&d, d.member)
	})
	if err == nil {
		d.member = ""
		err = d.End()
	}
	if err != nil {
		return d.locate(err)
	}
	return nil
}
